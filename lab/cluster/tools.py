"""kind, kubectl and helm: the one on PATH when its version will do, else the pinned release."""

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
ASK = {"kind": ["version"], "kubectl": ["version", "--client"], "helm": ["version", "--short"]}
# Only the numbers: what vendors add (-gke.1, +k3s1, or nothing at all) is no version for Python.
SAYS = re.compile(r"\bv(\d+(?:\.\d+)+)")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
BRING = "run once with a network: nox -s lab -- up --backend kind"


@dataclass(frozen=True)
class Tool:
    """What `tools.toml` says about one tool."""

    name: str
    version: str
    accepts: str
    url: str
    sha256: Mapping[str, str]
    program: str | None  # where it is in its archive; None when it is the file itself


@dataclass(frozen=True)
class Release:
    """The file of a tool's pinned release for this machine."""

    stored: str  # the program's name in the cache
    url: str
    sha256: str
    program: str | None

    @property
    def file(self) -> str:
        """The name in the cache of what is downloaded."""
        return f"{self.stored}.tar.gz" if self.program else self.stored


@functools.cache
def find(name: str) -> Path:
    """The tool's absolute path, downloaded when it is nowhere on this machine.

    Raises MachineError when it can't be had, LabError when a server sends another file.
    """
    return here(name) or download(pinned(name))


def here(name: str) -> Path | None:
    """The tool's absolute path, or None when it would have to be downloaded."""
    tool = pinned(name)
    path, version = on_path(name)
    return path if version and version in SpecifierSet(tool.accepts) else in_cache(tool)


def missing() -> list[str]:
    """The tools that would have to be downloaded."""
    return [name for name in ASK if not here(name)]


def describe(name: str) -> str:
    """The tool's version and where it is, or where it will come from. Downloads nothing.

    Raises MachineError when it is not here and no release is pinned for this machine.
    """
    if path := here(name):
        return f"{name} {version_of(name, path)} ({path})"
    tool = pinned(name)
    return f"{name} {tool.version} (to be downloaded: {release(tool).url})"


def pinned(name: str) -> Tool:
    """The tool as `tools.toml` has it."""
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


def on_path(name: str) -> tuple[Path | None, Version | None]:
    """The tool that a shell would run, and its version; None for what there is not."""
    found = shutil.which(name)
    path = Path(found).absolute() if found else None
    return path, version_of(name, path) if path else None


def version_of(name: str, path: Path) -> Version | None:
    """What the program says its version is. None when it does not run: then it won't do."""
    try:
        said = SAYS.search(run([path, *ASK[name]], timeout=30))
    except (LabError, OSError):  # OSError: it is made for another machine
        return None
    return Version(said[1]) if said else None


# --- The pinned release -------------------------------------------------------------------------


def release(tool: Tool) -> Release:
    """The tool's release for this machine. Raises MachineError when none is pinned for it."""
    os, arch = machine()
    if f"{os}-{arch}" not in tool.sha256:
        raise MachineError(f"no {tool.name} is pinned for {os} on {arch}", put_on_path(tool))
    fill = functools.partial(str.format, version=tool.version, os=os, arch=arch)
    return Release(
        stored=f"{tool.name}-{tool.version}-{os}-{arch}",
        url=fill(tool.url),
        sha256=tool.sha256[f"{os}-{arch}"],
        program=fill(tool.program) if tool.program else None,
    )


def machine() -> tuple[str, str]:
    """This machine's system and architecture, as the releases name them."""
    arch = platform.machine().lower()
    return platform.system().lower(), ARCHITECTURES.get(arch, arch)


def in_cache(tool: Tool) -> Path | None:
    """The pinned release's program, when the cache has its file and that is intact."""
    if "-".join(machine()) not in tool.sha256:
        return None
    wanted = release(tool)
    file = cache.held(wanted.sha256, wanted.file)
    return runnable(wanted, file) if file else None


def download(tool: Tool) -> Path:
    """The pinned release's program, in the cache. Raises MachineError, LabError."""
    wanted = release(tool)
    fix = f"{put_on_path(tool)}, or {BRING}"
    return runnable(wanted, cache.fetch(wanted.url, wanted.sha256, wanted.file, fix=fix))


def put_on_path(tool: Tool) -> str:
    """What to do without a release; says which version is there when that is the reason."""
    path, version = on_path(tool.name)
    found = f" ({path} is {version or 'of no known version'})" if path else ""
    return f"put {tool.name} {tool.accepts} on PATH{found}"


def runnable(wanted: Release, file: Path) -> Path:
    """The program that `file` is or holds, which anybody who sees it may run."""
    path = file.with_name(wanted.stored)
    if wanted.program:
        unpack(file, wanted.program, path)
    path.chmod(0o755)
    return path


def unpack(archive: Path, program: str, path: Path) -> None:
    """`path` is the archive's program. The archive was checked; `path` may have been changed."""
    with tarfile.open(archive) as tar:
        if not path.is_file() or not same(path, member(tar, program)):
            with cache.replacing(path) as part:
                cache.write(part, cache.blocks(member(tar, program)))
                part.chmod(0o755)


def member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """The archive's file `name`. Raises LabError when it has none."""
    file = tar.extractfile(name) if name in tar.getnames() else None
    if file is None:
        raise LabError(f"{tar.name!s} holds no file {name}", f"correct `program` in {PINS}")
    return file


def same(path: Path, other: IO[bytes]) -> bool:
    """Whether `path` holds the very bytes of `other`."""
    with path.open("rb") as file:
        pairs = itertools.zip_longest(cache.blocks(file), cache.blocks(other))
        return all(one == two for one, two in pairs)
