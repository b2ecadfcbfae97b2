"""The per-user download cache; each file is checked by its sha256 at each use."""

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
TIMEOUTS = (15, 60)  # seconds: to connect, and between two chunks of the file
STALE = 3600  # seconds; no running download goes that long without writing
OWN_FOLDER = "choose a folder of your own: XDG_CACHE_HOME=/path/to/folder"
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


def cache_path(env: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the per-user cache. Raises MachineError for a user without a home."""
    named = Path(env.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # the specification says to ignore a relative one
        return named / NAME
    caches = "Library/Caches" if platform.system() == "Darwin" else ".cache"
    try:
        return Path.home() / caches / NAME
    except RuntimeError as error:
        raise MachineError("this user has no home folder", OWN_FOLDER) from error


def ensure_folder() -> Path:
    """Create the per-user cache unless it exists, with mode 0700. Raises MachineError."""
    path = cache_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise MachineError(f"{path} can't be written: {error.strerror}", OWN_FOLDER) from error
    return path


def file_sha256(path: Path) -> str:
    """Return the sha256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_cached(sha256: str, name: str) -> Path | None:
    """Return the cached file `name` if it has this sha256, else None. Changes nothing."""
    path = cache_path() / name
    return path if path.is_file() and file_sha256(path) == sha256 else None


def fetch(url: str, sha256: str, name: str, *, fix: str) -> Path:
    """Return the cached file `name` with this sha256, downloading it if necessary.

    Raises MachineError, which suggests `fix`, when the file can't be downloaded, and LabError when
    the server sends another file than the pinned one.
    """
    return find_cached(sha256, name) or download(url, sha256, ensure_folder() / name, fix)


def download(url: str, sha256: str, path: Path, fix: str) -> Path:
    """Download `url` to `path`, complete and with this sha256, and return `path`."""
    remove_stale_parts(path.parent)
    try:
        with replacing(path) as part:
            retry_policy()(receive, url, part)
            check_sha256(url, sha256, part)
    except requests.RequestException as error:
        raise MachineError(
            f"{url} can't be downloaded: {describe_failure(error)}",
            f"{fix}; or bring that file here by other means, as {path}",
        ) from error
    return path


def retry_policy() -> Retrying:
    """Return the policy that retries transient errors, then raises the last one unchanged."""
    return Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=PAUSE),
        reraise=True,
    )


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed: after no response, 5xx or 429, but not a refusal."""
    if not isinstance(error, requests.RequestException):
        return False
    status = SERVER_ERROR if error.response is None else error.response.status_code
    return status >= SERVER_ERROR or status == TOO_MANY_REQUESTS


def receive(url: str, path: Path) -> None:
    """Write the response of `url` to `path`. Raises RequestException, also for a short response."""
    with requests.get(url, stream=True, timeout=TIMEOUTS) as response:
        response.raise_for_status()
        write(path, response.iter_content(BLOCK))


def check_sha256(url: str, sha256: str, path: Path) -> None:
    """Raise LabError unless `path` has the pinned sha256."""
    if (found := file_sha256(path)) != sha256:
        raise LabError(
            f"{url} is another file than the pinned one, and was not kept:\n"
            f"    sha256 {found}, pinned {sha256}",
            "something between you and that server changes what it sends, or the release was "
            "replaced: compare with the sha256 that the project publishes",
        )


def describe_failure(error: requests.RequestException) -> str:
    """Return the cause in one line: str(error) would name the whole stack."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return f"the server can't be reached or broke off ({type(error).__name__})"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move it to `path` when the block succeeds.

    Otherwise `path` is left as it was. Each block has its own temporary path, so that two processes
    that download the same file do not write into each other's.
    """
    part = path.with_name(f"{path.name}.part-{secrets.token_hex(8)}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, pieces: Iterable[bytes]) -> None:
    """Write the pieces to `path` and fsync it."""
    with path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def read_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of `file` in blocks of BLOCK bytes."""
    return iter(lambda: file.read(BLOCK), b"")


def remove_stale_parts(cache: Path) -> None:
    """Delete the partial files of killed downloads, but not those of running ones."""
    for part in cache.glob("*.part-*"):
        if time.time() - part.stat().st_mtime > STALE:
            part.unlink(missing_ok=True)
