"""The kit's wheel: built of a checkout, or found where this kit was installed from."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from lab.config import CHECKOUT, DISTRIBUTION, KIT
from lab.errors import LabError
from lab.shell import run

BUILD_SECONDS = 300
PART = "lab/sessions.py"  # what the noxfile of a project imports
GIVE = "name the wheel of the kit: --wheel PATH"


@dataclass(frozen=True)
class Wheel:
    """A wheel of the kit: its file, and the version in its name."""

    file: Path
    version: str

    @property
    def sha256(self) -> str:
        with self.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def is_checkout() -> bool:
    """Return whether this kit runs from a checkout, and not from what a wheel has installed."""
    return CHECKOUT is not None


def provide_wheel(given: Path | None, scratch: Path) -> Wheel:
    """Return the given wheel, else that of this kit; one that is built goes to `scratch`.

    Raises LabError when the file given is no wheel of the kit, or there is none.
    """
    if given:
        return read_wheel(given.expanduser().absolute())
    return build_wheel(scratch) if is_checkout() else find_installed_wheel()


def read_wheel(file: Path) -> Wheel:
    """Return the wheel of the kit that the file is. Raises LabError when it is none."""
    if not file.is_file():
        raise LabError(f"there is no file {file}", GIVE)
    try:
        name, version, *_ = parse_wheel_filename(file.name)
        with zipfile.ZipFile(file) as packed:
            complete = PART in packed.namelist()
    except (InvalidWheelFilename, zipfile.BadZipFile) as error:
        raise LabError(f"{file} is no wheel: {error}", GIVE) from error
    if name != canonicalize_name(DISTRIBUTION) or not complete:
        raise LabError(f"{file} is no wheel of the kit that a project can use", GIVE)
    return Wheel(file, str(version))


def build_wheel(folder: Path) -> Wheel:
    """Build the checkout's wheel into the folder, with the packages that are installed here."""
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    run([*words, folder], cwd=KIT, timeout=BUILD_SECONDS, fix=f"{GIVE}; `nox -s build` makes one")
    (file,) = folder.glob("*.whl")
    return read_wheel(file)


# --- Installed ------------------------------------------------------------------------------------


def find_installed_wheel() -> Wheel:
    """Return the wheel that this kit was installed from. Raises LabError when it is gone.

    It is where the installer has taken it from, or in the project that the command runs in.
    """
    installed = metadata.distribution(DISTRIBUTION)
    record = read_record(installed.read_text("RECORD") or "")
    places = (*find_source(installed.read_text("direct_url.json")), *find_project_wheels())
    for file in places:
        if file.is_file() and zipfile.is_zipfile(file) and is_source(file, record):
            return read_wheel(file)
    raise LabError(f"the wheel that this kit {installed.version} was installed from is gone", GIVE)


def find_source(direct_url: str | None) -> list[Path]:
    """Return the file that an installer has noted as a package's source (PEP 610), if it did."""
    url = urlsplit(json.loads(direct_url)["url"] if direct_url else "")
    return [Path(unquote(url.path))] if url.scheme == "file" else []


def find_project_wheels() -> list[Path]:
    """List the wheels of the project that the working directory is in, if it is in one."""
    here = Path.cwd()
    return [file for folder in (here, *here.parents) for file in folder.glob("kit/*.whl")]


def is_source(file: Path, record: set[tuple[str, str]]) -> bool:
    """Return whether what was installed has each file of this wheel, by its hash."""
    with zipfile.ZipFile(file) as packed:
        names = [name for name in packed.namelist() if name.endswith(".dist-info/RECORD")]
        held = read_record(packed.read(names[0]).decode()) if names else set()
        return bool(held) and held <= record and is_intact(packed, held)


def read_record(text: str) -> set[tuple[str, str]]:
    """Return the path and the hash of each file that a RECORD lists with one."""
    return {(row[0], row[1]) for row in csv.reader(text.splitlines()) if row[1:] and row[1]}


def is_intact(packed: zipfile.ZipFile, held: Iterable[tuple[str, str]]) -> bool:
    """Return whether the wheel holds what its RECORD says."""
    digests = ((packed.read(path), said) for path, said in held)
    return all(said == f"sha256={urlsafe_sha256(content)}" for content, said in digests)


def urlsafe_sha256(content: bytes) -> str:
    """Return a hash as RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
