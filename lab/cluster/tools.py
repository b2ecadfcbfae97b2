"""kind, kubectl and helm: from PATH if the version is accepted, else the pinned release."""

from __future__ import annotations

import functools
import itertools
import platform
import re
import shutil
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from lab.cluster import cache
from lab.errors import LabError, MachineError
from lab.shell import run

PINS = Path(__file__).with_name("tools.toml")
VERSION_ARGUMENTS = {
    "kind": ["version"],
    "kubectl": ["version", "--client"],
    "helm": ["version", "--short"],
}
# Only the numbers: packaging rejects what vendors append (-gke.1, +k3s1).
VERSION_NUMBER = re.compile(r"\bv(\d+(?:\.\d+)+)")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DOWNLOAD_FIX = "run once with a network: nox -s lab -- up --backend kind"


@dataclass(frozen=True)
class Tool:
    """The entry of `tools.toml` for one tool."""

    name: str
    version: str
    accepts: str
    url: str
    sha256: Mapping[str, str]
    program: str | None  # its path in the archive; None if the file is no archive


@dataclass(frozen=True)
class Release:
    """A tool's pinned release for this machine."""

    stored: str  # the program's name in the cache
    url: str
    sha256: str
    program: str | None

    @property
    def file(self) -> str:
        """The name of the download in the cache."""
        return f"{self.stored}.tar.gz" if self.program else self.stored


@functools.cache
def find(name: str) -> Path:
    """Return the tool's absolute path, downloading it unless it is on this machine.

    Raises MachineError when it can't be downloaded, LabError when a server sends another file.
    """
    return find_local(name) or download(read_pin(name))


def find_local(name: str) -> Path | None:
    """Return the tool's absolute path, or None if it would have to be downloaded."""
    tool = read_pin(name)
    path, version = find_on_path(name)
    return path if version and version in SpecifierSet(tool.accepts) else find_in_cache(tool)


def list_missing() -> list[str]:
    """List the tools that would have to be downloaded."""
    return [name for name in VERSION_ARGUMENTS if not find_local(name)]


def describe(name: str) -> str:
    """Return the tool's version and its path, or the URL it will be downloaded from.

    Downloads nothing. Raises MachineError when the tool is not here and no release is pinned for
    this machine.
    """
    if path := find_local(name):
        return f"{name} {ask_version(name, path)} ({path})"
    tool = read_pin(name)
    return f"{name} {tool.version} (to be downloaded: {pinned_release(tool).url})"


def read_pin(name: str) -> Tool:
    """Read the tool's entry of `tools.toml`."""
    entry = tomllib.loads(PINS.read_text("utf-8"))[name]
    return Tool(
        name=name,
        version=entry["version"],
        accepts=entry["accepts"],
        url=entry["url"],
        sha256=entry["sha256"],
        program=entry.get("program"),
    )


# --- The one on PATH ----------------------------------------------------------------------------


def find_on_path(name: str) -> tuple[Path | None, Version | None]:
    """Return the tool on PATH and its version; None for what is missing or unknown."""
    found = shutil.which(name)
    path = Path(found).absolute() if found else None
    return path, ask_version(name, path) if path else None


def ask_version(name: str, path: Path) -> Version | None:
    """Run the program and return its version, or None if it does not run or prints none."""
    try:
        said = VERSION_NUMBER.search(run([path, *VERSION_ARGUMENTS[name]], timeout=30))
    except (LabError, OSError):  # OSError: built for another machine
        return None
    return Version(said[1]) if said else None


# --- The pinned release -------------------------------------------------------------------------


def pinned_release(tool: Tool) -> Release:
    """Return the tool's release for this machine. Raises MachineError if none is pinned for it."""
    os, arch = os_and_arch()
    if f"{os}-{arch}" not in tool.sha256:
        raise MachineError(f"no {tool.name} is pinned for {os} on {arch}", path_advice(tool))
    fill = functools.partial(str.format, version=tool.version, os=os, arch=arch)
    return Release(
        stored=f"{tool.name}-{tool.version}-{os}-{arch}",
        url=fill(tool.url),
        sha256=tool.sha256[f"{os}-{arch}"],
        program=fill(tool.program) if tool.program else None,
    )


def os_and_arch() -> tuple[str, str]:
    """Return this machine's system and architecture, as the releases name them."""
    arch = platform.machine().lower()
    return platform.system().lower(), ARCHITECTURES.get(arch, arch)


def find_in_cache(tool: Tool) -> Path | None:
    """Return the pinned release's program if the cache has an intact download of it."""
    if "-".join(os_and_arch()) not in tool.sha256:
        return None
    wanted = pinned_release(tool)
    file = cache.find_cached(wanted.sha256, wanted.file)
    return make_executable(wanted, file) if file else None


def download(tool: Tool) -> Path:
    """Download the pinned release and return its program. Raises MachineError, LabError."""
    wanted = pinned_release(tool)
    fix = f"{path_advice(tool)}, or {DOWNLOAD_FIX}"
    return make_executable(wanted, cache.fetch(wanted.url, wanted.sha256, wanted.file, fix=fix))


def path_advice(tool: Tool) -> str:
    """Return the advice to put the tool on PATH, with the version that is there and unfit."""
    path, version = find_on_path(tool.name)
    found = f" ({path} is {version or 'of no known version'})" if path else ""
    return f"put {tool.name} {tool.accepts} on PATH{found}"


def make_executable(wanted: Release, file: Path) -> Path:
    """Return the program that `file` is or contains, executable for everybody."""
    path = file.with_name(wanted.stored)
    if wanted.program:
        unpack(file, wanted.program, path)
    path.chmod(0o755)
    return path


def unpack(archive: Path, program: str, path: Path) -> None:
    """Extract the program to `path` unless its bytes are there: only the archive was checked."""
    with tarfile.open(archive) as tar:
        if not path.is_file() or not has_same_bytes(path, open_member(tar, program)):
            with cache.replacing(path) as part:
                cache.write(part, cache.read_blocks(open_member(tar, program)))
                part.chmod(0o755)


def open_member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open the archive's file `name`. Raises LabError if there is none."""
    file = tar.extractfile(name) if name in tar.getnames() else None
    if file is None:
        raise LabError(f"{tar.name!s} holds no file {name}", f"correct `program` in {PINS}")
    return file


def has_same_bytes(path: Path, other: IO[bytes]) -> bool:
    """Return whether `path` has the same bytes as `other`."""
    with path.open("rb") as file:
        pairs = itertools.zip_longest(cache.read_blocks(file), cache.read_blocks(other))
        return all(one == two for one, two in pairs)
