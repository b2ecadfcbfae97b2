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
from typing import Any, TextIO, TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from dataset_steps.errors import TemporaryError
from dataset_steps.files import write_whole
from dataset_steps.settings import Settings

LOCK_SECONDS = 300  # how long a retry waits for a killed attempt's orphan to end
KEEP_SECONDS = 7 * 24 * 3600  # how long the workspace of a failed run is kept for reading

Record = TypeVar("Record")


@dataclass(frozen=True)
class Base:
    """The version that a run started from: the commit and what its pointer said."""

    commit: str
    md5: str
    size: int  # bytes


@dataclass(frozen=True)
class Change:
    """The modified dataset: which version it was made from and how long it is."""

    parent: str  # the base's MD5
    size: int  # bytes


@dataclass(frozen=True)
class Workspace:
    """Where one run keeps its clone and its dataset; the same for each attempt of its steps."""

    root: Path
    dataset_path: str
    key: str

    @classmethod
    def of(cls, settings: Settings) -> Workspace:
        """The workspace of the run that `settings` names."""
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

    def base(self) -> Base | None:
        """The version that was pulled, or None when no pull has come to its end."""
        return self.recorded("base", Base)

    def record_base(self, base: Base) -> None:
        """The pull is complete: the next attempt finds it done."""
        self.record("base", base)

    def change(self) -> Change | None:
        """What was appended to the base, or None when no modification has come to its end."""
        return self.recorded("change", Change)

    def record_change(self, change: Change) -> None:
        """The modification is complete."""
        self.record("change", change)

    def recorded(self, name: str, kind: type[Record]) -> Record | None:
        """What a step that came to its end has recorded under this name, or None."""
        try:
            return kind(**json.loads((self.root / f"{name}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def record(self, name: str, value: Any) -> None:
        """The workspace keeps `value`, a dataclass: the next attempt finds the step done."""
        write_whole(self.root / f"{name}.json", json.dumps(asdict(value)))

    def clear(self) -> None:
        """The folder is empty. The records go first: a half-emptied folder has none."""
        for record in self.root.glob("*.json"):
            record.unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Nothing of the run is left but what it published."""
        self.clear()
        self.root.rmdir()


def run_key(dag_id: str, run_id: str) -> str:
    """A folder's name for a run: readable, and different for different runs."""
    digest = hashlib.sha256(f"{dag_id}\0{run_id}".encode()).hexdigest()[:16]
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{dag_id}-{run_id}")[:60].strip("-") + "-" + digest


@contextlib.contextmanager
def exclusive(workspace: Workspace) -> Iterator[None]:
    """No other process is inside this workspace.

    A step that was killed can leave a child that still works for a moment; the retry waits for it.
    Raises TemporaryError after LOCK_SECONDS.
    """
    workspace.root.parent.mkdir(parents=True, exist_ok=True)
    path = workspace.root.with_name(workspace.key + ".lock")
    with acquire(path):
        workspace.root.mkdir(exist_ok=True)
        yield
        if not workspace.root.exists():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def turn(workspace: Workspace) -> Iterator[None]:
    """The runs that share this folder publish one after another.

    Only saves work: of runs that publish together one wins, and the others must pull and store
    again. What keeps history right is the compare-and-swap, so a turn that does not come in
    LOCK_SECONDS is not waited for.
    """
    try:
        lock = acquire(workspace.root.parent / "publish.lock")
    except TemporaryError:
        yield
        return
    with lock:
        yield


def acquire(path: Path) -> TextIO:
    """`path`, opened and locked by this process until it is closed. Raises TemporaryError."""
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
        # The holder before us may have removed the file: then our lock guards nothing.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def sweep(runs: Path) -> None:
    """Workspaces of runs that failed more than KEEP_SECONDS ago, and that nobody uses, are gone."""
    for folder in runs.iterdir():
        lock = folder.with_name(folder.name + ".lock")
        if expired(folder) and (held := try_lock(lock)):
            with held:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)


def expired(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # other runs end meanwhile
        return folder.is_dir() and folder.stat().st_mtime < time.time() - KEEP_SECONDS
    return False
