"""Where a project may be: in a folder that is new or empty, outside of every other project."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.config import KIT
from lab.errors import BusyError, ProjectError
from lab.project import FILE


def locate(path: Path) -> Path:
    """Return the whole path of a new project's folder, which need not be there."""
    whole = Path(os.path.normpath(path.expanduser().absolute()))  # a last link stays one
    return whole.parent.resolve() / whole.name


def refuse_place(target: Path) -> None:
    """Raise ProjectError when no project can be made at this path."""
    if target.is_symlink() or (target.exists() and not is_empty_folder(target)):
        raise ProjectError(
            f"{target} exists and is no empty folder", "choose another name; nothing was changed"
        )
    if target == Path.cwd().resolve():
        raise ProjectError(
            f"{target} is the folder that you are in, and would be replaced",
            f"cd .. && lab init {target.name}",
        )
    refuse_surroundings(target)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        if target.parent.exists():
            raise ProjectError(f"{target.parent} can't be written to", "choose another folder")
        raise ProjectError(
            f"there is no folder {target.parent}", f"mkdir -p {shlex.quote(str(target.parent))}"
        )


def is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def refuse_surroundings(target: Path) -> None:
    """Raise ProjectError inside of another project, which the kit's own checkout is, too."""
    for folder in target.parents:
        if (folder / FILE).is_file():
            what = "the kit's own checkout" if folder == KIT else "another project"
            beside = os.path.relpath(folder.parent / target.name)
            raise ProjectError(
                f"{target} is inside of {what}, {folder}", f"lab init {shlex.quote(beside)}"
            )


@contextmanager
def claim(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target, which nobody else uses meanwhile.

    It is gone afterwards. What a process that was killed has left there is removed, too. Raises
    BusyError when another process makes this project.
    """
    part = target.with_name(f".{target.name}.init")
    part.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(part, os.O_RDONLY)
    try:
        lock(descriptor, part, target)
        try:
            for left in part.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        os.close(descriptor)


def lock(descriptor: int, part: Path, target: Path) -> None:
    """Hold the lock of a folder until it is closed. Raises BusyError when another process does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        still_there = part.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        still_there = False
    if not still_there:
        raise BusyError(f"another `lab init` makes {target}", "wait for its end")
