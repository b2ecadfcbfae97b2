"""The bare repositories under one folder, `OWNER/NAME.git`, each created atomically."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import ServiceError
from lab.reasons import find_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

# No part may begin with a dot: that excludes `..` and the folders of unfinished creations.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_NAME = re.compile(NAME, re.ASCII)
_INIT_TIMEOUT = 60.0  # seconds

# Appended to what `git init` writes.
# - core.fsync: an acknowledged push survives a power cut (git before 2.36 ignores it).
# - receive.fsckObjects: a damaged object is refused at the push, not found by the next clone.
# - receive.autogc: git's own gc would continue in the background after the push, outside our lock.
_SETTINGS = """\
[core]
	fsync = committed,reference,loose-object
[http]
	receivepack = true
[receive]
	denyNonFastForwards = true
	denyDeletes = true
	fsckObjects = true
	autogc = false
[uploadpack]
	allowFilter = true
"""


def git_environment() -> dict[str, str]:
    """Return git's whole environment: without anybody's configuration, without secrets."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        # The formats that the web view can read and whose lock files we know, whatever git's
        # next defaults are.
        "GIT_DEFAULT_HASH": "sha1",
        "GIT_DEFAULT_REF_FORMAT": "files",
    }


def folder(root: Path, name: str) -> Path:
    """Return the folder of the repository OWNER/NAME. Raises ValueError for any other name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a repository's name (OWNER/NAME): {name!r}")
    return root / f"{name}.git"


def exists(root: Path, name: str) -> bool:
    """Return whether the repository exists. Raises ValueError for an impossible name."""
    return (folder(root, name) / "HEAD").is_file()


def list_names(root: Path) -> list[str]:
    """List the names of all repositories under the root, sorted."""
    found = (path.relative_to(root).as_posix() for path in root.glob("*/*.git"))
    names = (path.removesuffix(".git") for path in found)
    return sorted(name for name in names if _NAME.fullmatch(name) and exists(root, name))


def create_repository(root: Path, name: str) -> Path:
    """Create the bare repository OWNER/NAME unless it exists; return its folder.

    Raises ValueError for a bad name, ServiceError when git fails, OSError when the root can't be
    written.
    """
    repository = folder(root, name)
    repository.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive_lock(repository.parent):
        unfinished = f".{repository.name}.new-"
        for leftover in repository.parent.glob(f"{unfinished}*"):
            shutil.rmtree(leftover)
        if not exists(root, name):
            temporary = Path(tempfile.mkdtemp(prefix=unfinished, dir=repository.parent))
            _init_repository(temporary)
            temporary.rename(repository)
    return repository


def _init_repository(repository: Path) -> None:
    # An empty template: none of the machine's own hooks is copied.
    command = ["git", "init", "--quiet", "--bare", "--template=", "--initial-branch=main"]
    try:
        subprocess.run(
            [*command, os.fspath(repository)],
            env=git_environment(),
            check=True,
            capture_output=True,
            timeout=_INIT_TIMEOUT,
        )
    except FileNotFoundError:
        raise ServiceError("there is no git to be found", "Install git 2.31 or later.") from None
    except subprocess.CalledProcessError as error:
        reason = find_reason(error.stderr.decode(errors="replace"))
        raise ServiceError(f"git init failed: {reason}", "See what git says.") from error
    with (repository / "config").open("a", encoding="utf-8") as config:
        config.write(_SETTINGS)


def ensure_hook(repository: Path, text: str) -> None:
    """Install `text` atomically as the repository's `post-receive` hook unless it is in place."""
    hook = repository / "hooks" / "post-receive"
    hook.parent.mkdir(mode=0o700, exist_ok=True)
    if hook.is_file() and hook.read_text("utf-8") == text:
        return
    part = hook.with_name("post-receive.part")
    part.write_text(text, "utf-8")
    part.chmod(0o700)
    part.replace(hook)


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the folder's lock, which is released when the holding process ends."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
