"""The folder of one run. No other run ever touches it, so runs can overlap."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from dataset_steps.contract import find_path, run_key
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import remove, write_atomically
from dataset_steps.settings import Settings

if TYPE_CHECKING:
    from dataset_steps.pointer import Pointer  # DVC's parser takes time that not every step needs

LOCK_SECONDS = 300  # how long a retry waits for an orphan of a killed attempt to end
KEEP_SECONDS = 7 * 24 * 3600  # how long the workspace of a failed run is kept for inspection
LASTING = ("asked.*", "again")  # the records that tell how to begin anew
LOCK_IS_HELD = {"WORKSPACE_LOCK": "held"}  # in a step's environment: whoever started it has it

Record = TypeVar("Record")


@dataclass(frozen=True)
class Began:
    """The newest commit of `main` when the run began: all that it pulls is of that moment."""

    commit: str


@dataclass(frozen=True)
class Asked:
    """What a run has asked for of one data set. It outlives what was pulled."""

    name: str
    path: str
    commit: str  # "main", or the beginning of a hash
    optional: bool  # there may be no version yet

    @property
    def is_newest(self) -> bool:
        """Whether the newest version was asked for, and not that of a certain commit."""
        return self.commit == "main"


@dataclass(frozen=True)
class Pulled:
    """The version of one data set that a run works on; without an MD5 there was none yet."""

    name: str
    path: str
    commit: str  # the one that made the version
    md5: str
    size: int  # bytes
    # The MD5 of its bytes where the pointer's is another one: DVC 2 hashed texts with LF for CRLF.
    bytes_md5: str = ""

    def is_of(self, pointer: Pointer | None) -> bool:
        """Return whether the pointer names this version."""
        return (pointer.md5, pointer.size) == (self.md5, self.size) if pointer else not self.md5


@dataclass(frozen=True)
class Sealed:
    """The content that a step made of a data set: what is published must be just that."""

    md5: str
    size: int  # bytes


@dataclass(frozen=True)
class Made:
    """The newest commit that was made in the workspace, whether or not its push arrived."""

    commit: str


@dataclass(frozen=True)
class Workspace:
    """The folder of one run's clone and data sets; the same for each attempt of its steps."""

    root: Path
    data_sets: Mapping[str, str]  # paths in the repository, by name
    key: str

    @classmethod
    def from_settings(cls, settings: Settings) -> Workspace:
        """Return the workspace of the run that `settings` names."""
        key = run_key(settings.dag_id, settings.run_id)
        return cls(settings.shared / "runs" / key, settings.data_sets, key)

    @property
    def repository(self) -> Path:
        """The clone, with the data sets in it: where the steps of a pipeline work."""
        return self.root / "repository"

    @property
    def publishing(self) -> Path:
        """The work tree of the same clone in which a commit is made; no step works there."""
        return self.root / "publishing"

    def place(self, name: str) -> Path:
        """Return where a data set is: a file or a directory. Raise StepError for another name."""
        return self.repository / find_path(self.data_sets, name)

    # --- Records: what the next attempt need not do again -----------------------------------------

    def is_begun(self) -> bool:
        """Return whether anything was asked for in this workspace."""
        return any(self.root.glob("asked.*.json"))

    def list_asked(self) -> list[Asked]:
        """List what the run has asked for, by the data sets' names."""
        names = sorted(path.name.split(".")[1] for path in self.root.glob("asked.*.json"))
        found = (self.read_record(f"asked.{name}", Asked) for name in names)
        return [asked for asked in found if asked]

    def read_pulled(self, name: str) -> Pulled | None:
        """Return the version of a data set that was pulled, or None when no pull is complete."""
        return self.read_record(f"pulled.{name}", Pulled)

    def require_pulled(self, name: str) -> Pulled:
        """Return the version of a data set that was pulled. Raise StepError when none was."""
        if found := self.read_pulled(name):
            return found
        raise StepError(
            f"{name} was not pulled into this run's workspace: the DAG needs a `pull` of it before "
            "this step; clear that task to run it again"
        )

    def list_pulled(self) -> list[Pulled]:
        """List the versions that were pulled, by the data sets' names."""
        found = (self.read_pulled(asked.name) for asked in self.list_asked())
        return [pulled for pulled in found if pulled]

    def seal(self, name: str, md5: str, size: int) -> None:
        """Record the content that a step made of a data set: no other one is published."""
        self.record(f"sealed.{name}", Sealed(md5, size))

    def read_seal(self, name: str) -> Sealed | None:
        """Return the content that a step has sealed, or None."""
        return self.read_record(f"sealed.{name}", Sealed)

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

    def forget(self, name: str) -> None:
        """Remove a record."""
        (self.root / f"{name}.json").unlink(missing_ok=True)

    # --- The end ----------------------------------------------------------------------------------

    def clear(self, *, but: Sequence[str] = ()) -> None:
        """Empty the folder, but for the records whose names match one of the patterns `but`.

        The other records go first: a half-emptied folder has none of them. Of these what was asked
        for goes before the rest, so a folder in which anything was asked for has its clone.
        """
        kept = {path for name in but for path in self.root.glob(f"{name}.json")}
        for record in sorted({*self.root.glob("*.json")} - kept):  # `asked.…` before `began`
            record.unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        for path in {*self.root.iterdir()} - kept:
            remove(path)

    def remove(self) -> None:
        """Delete the folder: nothing of the run is left but what it published."""
        self.clear()
        self.root.rmdir()


@contextlib.contextmanager
def exclusive_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace's lock: no other process works in it meanwhile.

    A step that was killed can leave a child that works on for a moment; the retry waits for it.
    Raise TemporaryError after LOCK_SECONDS.
    """
    workspace.root.parent.mkdir(parents=True, exist_ok=True)
    if LOCK_IS_HELD.items() <= os.environ.items():
        workspace.root.mkdir(exist_ok=True)
        yield
        return
    path = lock_file(workspace.root)
    with acquire_lock(path):
        workspace.root.mkdir(exist_ok=True)
        yield
        if not workspace.root.exists():
            path.unlink(missing_ok=True)


def lock_file(root: Path) -> Path:
    """Return the lock of the workspace in this folder."""
    return root.with_name(root.name + ".lock")


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
        lock = lock_file(folder)
        if is_expired(folder) and (held := try_lock(lock)):
            with held, contextlib.suppress(OSError):  # a leftover is no reason to fail this run
                remove(folder)
                lock.unlink(missing_ok=True)


def is_expired(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # other runs end meanwhile
        return folder.is_dir() and folder.stat().st_mtime < time.time() - KEEP_SECONDS
    return False
