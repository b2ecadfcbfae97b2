"""The environments of a project's own images: where there are no containers, each is a Python's.

Its own packages come first in it, then the modules of its folder, then all that the lab has. It is
made beside the one that it replaces, and a link to it is made last: steps that run keep theirs, and
no half of one is ever seen.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from lab import installing
from lab.cluster import images
from lab.cluster.images import DOCKERFILE, PACKAGE, REQUIREMENTS
from lab.config import Config
from lab.errors import LabError
from lab.home import processes
from lab.project import FILE, OwnImage
from lab.shell import run
from lab.wait import run_in_parallel

if TYPE_CHECKING:
    import nox

BUILT = ".built"  # the folder of the environments that the links lead to
INSTALL_SECONDS = 1800
MAKE_SECONDS = 120
LOCKED = "hatchling.build"  # the build backend that the kit's own locks have
# The lab's own packages come after those of the image, with what their `.pth` files add.
SEARCH = "import site; site.addsitedir({!r})\n"


@dataclass(frozen=True)
class Place:
    """What the installer asks a session of nox for: here there is none."""

    location: str

    @property
    def virtualenv(self) -> Place:
        return self

    def error(self, text: str) -> NoReturn:
        raise LabError(text, "python -m pip config debug shows which file it is")


def folder(config: Config) -> Path:
    """Return the folder of the environments, each by its image's name."""
    return config.data / "images"


def prepare(config: Config) -> None:
    """Make the environment of each image that lab.toml declares, unless it is there.

    Raises LabError when one can't be made.
    """
    declared = config.project.images
    here = folder(config)
    if here.is_dir():
        forget_others(here, declared)
    if lacking := [one for one in declared.values() if not is_current(here, one)]:
        here.mkdir(mode=0o700, parents=True, exist_ok=True)
        env = installer_environment(config)
        run_in_parallel(*(partial(make_environment, config, one, env) for one in lacking))


def forget_others(here: Path, declared: Mapping[str, OwnImage]) -> None:
    """Delete the environments of images that are not declared any more."""
    for link in here.iterdir():
        if link.is_symlink() and link.name not in declared:
            link.unlink()
            shutil.rmtree(here / BUILT / link.name, ignore_errors=True)


def is_current(here: Path, image: OwnImage) -> bool:
    """Return whether the image's environment is whole, and made of what is there now."""
    link = here / image.name
    is_whole = link.is_symlink() and (link / "bin" / "python").exists()
    return is_whole and link.readlink().name.startswith(fingerprint(image))


def fingerprint(image: OwnImage) -> str:
    """Return a hash of all that the image's environment is made of.

    Modules are used where they are, unless they are a package, which is installed.
    """
    files = images.list_own_files(image)
    used = files if PACKAGE in files else {n: f for n, f in files.items() if n == REQUIREMENTS}
    made_with = {"version": sys.version, "lab": sys.prefix, "folder": str(image.folder)}
    return images.files_tag(used, made_with)


def make_environment(config: Config, image: OwnImage, env: Mapping[str, str]) -> None:
    """Make the image's environment and let its name lead there. Raises LabError.

    The one before stays for the steps that run in it; older ones go.
    """
    files = images.list_own_files(image)
    tell_shortcomings(image, files)
    here = folder(config)
    made = here / BUILT / image.name / f"{fingerprint(image)}-{secrets.token_hex(4)}"
    link = here / image.name
    before = link.resolve()
    for older in made.parent.glob("*"):
        if older != before:
            shutil.rmtree(older, ignore_errors=True)
    try:
        install(image, files, made, env)
    except LabError as error:
        raise LabError(
            f"the image {image.name} can't be installed: {error.what}",
            f"correct what [images.{image.name}] of {FILE} names; what pip is told of an index"
            " holds here, too",
        ) from error
    replace_link(link, made)


def tell_shortcomings(image: OwnImage, files: Mapping[str, Path]) -> None:
    """Print what is not as it would be in a container of this image."""
    images.tell_unpinned(image.name, files)
    is_python = {REQUIREMENTS, PACKAGE} & files.keys() or any(n.endswith(".py") for n in files)
    if DOCKERFILE in files and not is_python:
        print(f"  image {image.name}: its Dockerfile is for Docker; its steps have the lab's here")


def install(image: OwnImage, files: Mapping[str, Path], made: Path, env: Mapping[str, str]) -> None:
    """Make an environment with what the image needs. Raises LabError."""
    uv(env, "venv", "--python", sys.executable, made, timeout=MAKE_SECONDS)
    write_search_path(image, files, made)
    if REQUIREMENTS in files:
        hashes = ("--require-hashes",) if images.has_hashes(files[REQUIREMENTS]) else ()
        uv_pip_install(env, made, *hashes, "--requirement", files[REQUIREMENTS])
    if PACKAGE in files:
        locked = LOCKED in files[PACKAGE].read_text("utf-8", "replace")
        with images.collecting(files) as sources:  # a build may write beside its sources
            how = ("--no-build-isolation",) if locked else ()
            uv_pip_install(env, made, "--no-deps", *how, sources)


def write_search_path(image: OwnImage, files: Mapping[str, Path], made: Path) -> None:
    """Let the environment's Python find the folder's modules, then what the lab has."""
    own = sysconfig.get_path("purelib", "venv", {"base": str(made), "platbase": str(made)})
    modules = f"{image.folder}\n" if image.folder and PACKAGE not in files else ""
    places = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    Path(own, "lab.pth").write_text(modules + "".join(map(SEARCH.format, places)), "utf-8")


def replace_link(link: Path, target: Path) -> None:
    """Let the link lead to `target`, atomically."""
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


# --- uv -------------------------------------------------------------------------------------------


def installer_environment(config: Config) -> dict[str, str]:
    """Return uv's environment: this one, with what pip is told of how to reach an index.

    An address may hold a password, so it is in no argument. `lab down` ends what it starts.
    """
    session = cast("nox.Session", Place(str(folder(config))))
    changes = {**installing.installer_environment(session), processes.MARK: str(config.home)}
    kept = {name: value for name, value in os.environ.items() if name not in changes}
    return {**kept, **{name: value for name, value in changes.items() if value is not None}}


def uv_pip_install(env: Mapping[str, str], made: Path, *arguments: str | Path) -> None:
    """Install into an environment. With hashes any index will do that has the very files."""
    given: list[str | Path] = ["--compile-bytecode", "--python", made, *arguments]
    given += installing.index_words(dict(env))
    own = {"UV_INDEX_STRATEGY": "unsafe-best-match"} if "--require-hashes" in arguments else {}
    uv({**env, **own}, "pip", "install", *given, timeout=INSTALL_SECONDS)


def uv(env: Mapping[str, str], *arguments: str | Path, timeout: float) -> None:
    """Run the lab's own uv. Raises LabError."""
    command = [sys.executable, "-m", "uv", *arguments, "--quiet", "--no-config"]
    run(command, timeout=timeout, env=env)
