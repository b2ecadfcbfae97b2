"""The folder of one run. No other run ever touches it, so runs can overlap."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from dataset_steps.errors import TemporaryError
from dataset_steps.files import write_atomically
from dataset_steps.settings import Settings

if TYPE_CHECKING:
    from dataset_steps.pointer import Pointer  # DVC's parser takes time that not every step needs

LOCK_SECONDS = 300  # how long a retry waits for an orphan of a killed attempt to end
KEEP_SECONDS = 7 * 24 * 3600  # how long the workspace of a failed run is kept for inspection

Record = TypeVar("Record")


@dataclass(frozen=True)
class Base:
    """The version that a run started from: the commit, and what its pointer said."""

    commit: str
    md5: str
    size: int  # bytes
    # The MD5 of its bytes where the pointer's is another one: DVC 2 hashed texts with LF for CRLF.
    bytes_md5: str = ""

    def is_of(self, pointer: Pointer) -> bool:
        """Return whether the pointer names this version."""
        return (pointer.md5, pointer.size) == (self.md5, self.size)


@dataclass(frozen=True)
class Change:
    """The modified dataset: the version it was made from, and its size."""

    parent: str  # the base's MD5
    size: int  # bytes


@dataclass(frozen=True)
class Made:
    """The newest commit that was made in the workspace, whether or not its push arrived."""

    commit: str


@dataclass(frozen=True)
class Workspace:
    """The folder of one run's clone and dataset; the same for each attempt of its steps."""

    root: Path
    dataset_path: str
    key: str

    @classmethod
    def from_settings(cls, settings: Settings) -> Workspace:
        """Return the workspace of the run that `settings` names."""
        key = run_key(settings.dag_id, settings.run_id)
        return cls(settings.shared / "runs" / key, settings.dataset_path, key)

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def dataset(self) -> Path:
        return self.repository / self.dataset_path

    @property
    def pointer(self) -> Path:
        return self.repository / f"{self.dataset_path}.dvc"

    def read_base(self) -> Base | None:
        """Return the version that was pulled, or None when no pull is complete."""
        return self.read_record("base", Base)

    def record_base(self, base: Base) -> None:
        """Record that the pull is complete, for the next attempt."""
        self.record("base", base)

    def read_change(self) -> Change | None:
        """Return the modified version, or None when no modification is complete."""
        return self.read_record("change", Change)

    def record_change(self, change: Change) -> None:
        """Record that the modification is complete."""
        self.record("change", change)

    def has_made(self, commit: str) -> bool:
        """Return whether the commit was made here, in this attempt or in one that was cut off."""
        return self.read_record("made", Made) == Made(commit)

    def record_made(self, commit: str) -> None:
        """Record the commit, before it is pushed."""
        self.record("made", Made(commit))

    def read_record(self, name: str, kind: type[Record]) -> Record | None:
        """Return what a completed step recorded under this name, or None."""
        try:
            return kind(**json.loads((self.root / f"{name}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def record(self, name: str, value: Any) -> None:
        """Write `value`, a dataclass, to the workspace: the next attempt finds the step done."""
        write_atomically(self.root / f"{name}.json", json.dumps(asdict(value)))

    def clear(self) -> None:
        """Empty the folder. The records go first: a half-emptied folder has none."""
        for record in self.root.glob("*.json"):
            record.unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Delete the folder: nothing of the run is left but what it published."""
        self.clear()
        self.root.rmdir()


def run_key(dag_id: str, run_id: str) -> str:
    """Return the name of a run's folder: readable, and different for different runs."""
    digest = hashlib.sha256(f"{dag_id}\0{run_id}".encode()).hexdigest()[:16]
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{dag_id}-{run_id}")[:60].strip("-") + "-" + digest


@contextlib.contextmanager
def exclusive_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace's lock: no other process works in it meanwhile.

    A step that was killed can leave a child that works on for a moment; the retry waits for it.
    Raise TemporaryError after LOCK_SECONDS.
    """
    workspace.root.parent.mkdir(parents=True, exist_ok=True)
    path = workspace.root.with_name(workspace.key + ".lock")
    with acquire_lock(path):
        workspace.root.mkdir(exist_ok=True)
        yield
        if not workspace.root.exists():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def publish_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the lock by which the runs that share this folder publish one after another.

    It only saves work: of runs that publish together one wins, and the others must pull and store
    again. The compare-and-swap of the push keeps the history right, so after LOCK_SECONDS the
    block runs without the lock.
    """
    try:
        lock = acquire_lock(workspace.root.parent / "publish.lock")
    except TemporaryError:
        yield
        return
    with lock:
        yield


def acquire_lock(path: Path) -> TextIO:
    """Open and lock `path` for this process, until the file is closed. Raise TemporaryError."""
    retrying = Retrying(
        retry=retry_if_result(lambda file: file is None),
        stop=stop_after_delay(LOCK_SECONDS),
        wait=wait_fixed(0.1),
    )
    with contextlib.suppress(RetryError):
        if file := retrying(try_lock, path):
            return file
    raise TemporaryError(f"another process holds {path} since {LOCK_SECONDS} s")


def try_lock(path: Path) -> TextIO | None:
    file = path.open("a")
    os.set_inheritable(file.fileno(), True)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous holder may have removed the file: then this lock guards nothing.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def sweep(runs: Path) -> None:
    """Remove unused workspaces of runs that failed more than KEEP_SECONDS ago."""
    for folder in runs.iterdir():
        lock = folder.with_name(folder.name + ".lock")
        if is_expired(folder) and (held := try_lock(lock)):
            with held:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)


def is_expired(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # other runs end meanwhile
        return folder.is_dir() and folder.stat().st_mtime < time.time() - KEEP_SECONDS
    return False
