"""Files from elsewhere: downloaded once per user, checked by sha256 at each use."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from lab.errors import LabError, MachineError

NAME = "mlops-lab"
BLOCK = 1 << 20  # bytes
ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt, doubled after each
TIMEOUTS = (15, 60)  # seconds: for a connection, and between two pieces of the file
STALE = 3600  # seconds; no download goes that long without a piece
OWN_FOLDER = "choose a folder of your own: XDG_CACHE_HOME=/path/to/folder"
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


def place(env: Mapping[str, str] = os.environ) -> Path:
    """Where the kit's per-user cache is, or will be. Raises MachineError for a user without one."""
    named = Path(env.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # the specification says to ignore a relative one
        return named / NAME
    caches = "Library/Caches" if platform.system() == "Darwin" else ".cache"
    try:
        return Path.home() / caches / NAME
    except RuntimeError as error:
        raise MachineError("this user has no home folder", OWN_FOLDER) from error


def folder() -> Path:
    """The kit's per-user cache: it is there, for its owner only. Raises MachineError."""
    path = place()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise MachineError(f"{path} can't be written: {error.strerror}", OWN_FOLDER) from error
    return path


def digest(path: Path) -> str:
    """The sha256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def held(sha256: str, name: str) -> Path | None:
    """The cache's file `name` when it has this sha256, else None. Changes nothing."""
    path = place() / name
    return path if path.is_file() and digest(path) == sha256 else None


def fetch(url: str, sha256: str, name: str, *, fix: str) -> Path:
    """The cache's file `name`, which has this sha256; downloaded when it is not there.

    Raises MachineError when the file can't be had, and says `fix`: what else would bring it.
    Raises LabError when the server sends another file than the pinned one.
    """
    return held(sha256, name) or download(url, sha256, folder() / name, fix)


def download(url: str, sha256: str, path: Path, fix: str) -> Path:
    """`path`, which holds what `url` sent, all of it and of this sha256."""
    sweep(path.parent)
    try:
        with replacing(path) as part:
            attempts()(receive, url, part)
            refuse_other_file(url, sha256, part)
    except requests.RequestException as error:
        raise MachineError(
            f"{url} can't be downloaded: {reason(error)}",
            f"{fix}; or bring that file here by other means, as {path}",
        ) from error
    return path


def attempts() -> Retrying:
    """Tries again what may succeed then; the last error is raised as it is."""
    return Retrying(
        retry=retry_if_exception(passing),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=PAUSE),
        reraise=True,
    )


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed later. What a server refuses it will refuse again."""
    if not isinstance(error, requests.RequestException):
        return False
    status = SERVER_ERROR if error.response is None else error.response.status_code
    return status >= SERVER_ERROR or status == TOO_MANY_REQUESTS


def receive(url: str, path: Path) -> None:
    """`path` holds what `url` sends. Raises RequestException, also when it ends too early."""
    with requests.get(url, stream=True, timeout=TIMEOUTS) as response:
        response.raise_for_status()
        write(path, response.iter_content(BLOCK))


def refuse_other_file(url: str, sha256: str, path: Path) -> None:
    """Raises LabError when `path` is not what was pinned."""
    if (found := digest(path)) != sha256:
        raise LabError(
            f"{url} is another file than the pinned one, and was not kept:\n"
            f"    sha256 {found}, pinned {sha256}",
            "something between you and that server changes what it sends, or the release was "
            "replaced: compare with the sha256 that the project publishes",
        )


def reason(error: requests.RequestException) -> str:
    """Why there is no file, in one line: the text of `error` itself names the whole stack."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return f"the server can't be reached or broke off ({type(error).__name__})"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to: the file is at `path` once the block ends well.

    Otherwise `path` is as it was. Each block has a name of its own, so two processes that bring the
    same file do not write into each other's.
    """
    part = path.with_name(f"{path.name}.part-{secrets.token_hex(8)}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, pieces: Iterable[bytes]) -> None:
    """`path` holds the pieces, on the disk."""
    with path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """What can still be read from `file`, piece by piece."""
    return iter(lambda: file.read(BLOCK), b"")


def sweep(cache: Path) -> None:
    """What killed downloads left is gone; those under way are not touched."""
    for part in cache.glob("*.part-*"):
        if time.time() - part.stat().st_mtime > STALE:
            part.unlink(missing_ok=True)
