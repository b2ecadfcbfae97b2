"""The check of a user's own data, before anything is changed: a table, any other file, a directory.

The steps' reader checks a table, as a process: what a run can't read must not be taken.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data_sets import find_fault_of_name
from lab.errors import (
    DatasetEmpty,
    DatasetError,
    DatasetMissing,
    DatasetNotUtf8,
    DatasetRagged,
    DatasetWithoutHeader,
)
from lab.shell import run

SECONDS = 600  # 1 GB of quoted text takes less than a minute
DATA_ERROR = 65  # the exit code of `dataset-steps inspect` for a table that has a fault
# How the name of a file that holds a table ends.
TABLE = re.compile(r"\.(csv|tsv|tab|txt)$", re.IGNORECASE)
OF_DVC = {"dvc.yaml", ".dvcignore"}  # `dvc add` of a directory with one of them fails
IGNORED = {".git", ".dvc", ".hg"}  # what DVC leaves out of a directory, whatever is in it
FAULTS: dict[str, type[DatasetError]] = {
    "unreadable": DatasetMissing,
    "not_text": DatasetNotUtf8,
    "no_header": DatasetWithoutHeader,
    "no_record": DatasetEmpty,
    "ragged": DatasetRagged,
}


@dataclass(frozen=True)
class Shape:
    """A table's column names, number of records, size in bytes, and MD5 in lower-case hex."""

    columns: tuple[str, ...]
    records: int
    size: int
    md5: str

    def __str__(self) -> str:
        return f"{self.records} records of {len(self.columns)} columns"


@dataclass(frozen=True)
class Content:
    """What is taken as it is: a file, or all files of a directory."""

    size: int  # bytes, of all files
    files: int | None = None  # of a directory
    empty: tuple[str, ...] = ()  # directories in it without a file, which DVC does not keep

    def __str__(self) -> str:
        files = "one file" if self.files is None else f"{self.files} files"
        return f"{files}, {self.size} bytes"


def is_table_name(path: str | Path) -> bool:
    """Return whether a file of this name has to hold a table."""
    return TABLE.search(Path(path).name) is not None


def inspect(path: Path) -> Shape | Content:
    """Return what `path` holds: a table, or what is taken as it is.

    Raises DatasetMissing when it is not there or can't be read, the error of FAULTS for the first
    thing in a table that can't be right, and DatasetError for what git or DVC does not keep.
    """
    found = inspect_content(path)
    return inspect_table(path) if found.files is None and is_table_name(path) else found


def inspect_content(path: Path, fix: str = "") -> Content:
    """Return what `path` holds, whatever a table in it may be like.

    Raises DatasetMissing and DatasetError as `inspect` does; `fix` says what to do where it is not
    there.
    """
    with translating_errors(path, fix):
        mode = path.stat().st_mode
        refuse_name(path)
        if stat.S_ISDIR(mode):
            return inspect_directory(path)
        refuse_special(path, mode)
        path.open("rb").close()
        return Content(path.stat().st_size)


def refuse_name(path: Path) -> None:
    """Raise DatasetError when git or DVC can't keep a file of this name."""
    if why := find_fault_of_name(path.name) if path.name else "has no name":
        raise DatasetError(f"{show(path)}: {why}", "give --dataset a copy with another name")


def show(path: Path | str) -> str:
    """Return a path in one line, with what is no text of UTF-8 written as an escape."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return text if text.isprintable() else text.encode("unicode_escape").decode()


# --- Tables ---------------------------------------------------------------------------------------


def inspect_table(path: Path) -> Shape:
    """Return the shape of a table that a run can append to. Raises the error of FAULTS."""
    said = run_inspection(path)
    if fault := said.get("fault"):
        raise FAULTS.get(fault, DatasetError)(said["what"], said["fix"])
    return Shape(tuple(said["columns"]), said["records"], said["size"], said["md5"])


def run_inspection(path: Path) -> dict[str, Any]:
    """Return what `dataset-steps inspect` prints of the file. Raises LabError."""
    printed = run(
        [sys.executable, "-P", "-m", "dataset_steps", "inspect", path.absolute()],
        timeout=SECONDS,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        accepted=(0, DATA_ERROR),
    )
    said: dict[str, Any] = json.loads(printed)
    return said


# --- Directories ----------------------------------------------------------------------------------


def inspect_directory(top: Path) -> Content:
    """Return what a directory holds. Raises DatasetError for the first thing that DVC can't keep.

    Raises DatasetEmpty when there is no file in it.
    """
    sizes: list[int] = []
    empty: list[str] = []
    folders = [os.fspath(top)]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            refuse_entry(entry)
        sizes += [entry.stat().st_size for entry in entries if entry.is_file()]
        folders += [entry.path for entry in entries if entry.is_dir()]
        empty += [] if entries else [folder]
    if not sizes:
        fix = "put a file in it: DVC keeps no directory without one"
        raise DatasetEmpty(f"{show(top)}: there is no file in this directory", fix)
    names = sorted(os.path.relpath(folder, top) for folder in empty)
    return Content(sum(sizes), len(sizes), tuple(map(show, names)))


def refuse_entry(entry: os.DirEntry[str]) -> None:
    """Raise DatasetError for what DVC does not keep, DatasetMissing for a file nobody may read."""
    path, quoted = show(entry.path), shlex.quote(show(entry.path))
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        fix = "have the file itself there: `cp -rL` copies a directory without links"
        raise DatasetError(f"{path}: is a symbolic link, which DVC does not keep", fix)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DatasetError(
            f"{path}: is neither a file nor a directory", f"take it out: `rm {quoted}`"
        )
    if why := find_fault_in_directory(entry.name, is_file=stat.S_ISREG(mode)):
        raise DatasetError(f"{path}: {why}", "call it otherwise, or take it out of the directory")
    if stat.S_ISREG(mode) and not os.access(entry.path, os.R_OK):
        raise DatasetMissing(f"{path}: can't be read", f"make it readable: `chmod u+r {quoted}`")


def find_fault_in_directory(name: str, *, is_file: bool) -> str | None:
    """Return why DVC could not keep a file or a directory of this name in a directory, or None."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if name in IGNORED:
        return "has a name that DVC leaves out"
    if is_file and (name in OF_DVC or name.endswith(".dvc")):
        return "has a name by which DVC takes it for a file of its own"
    return None


# --- Files that can't be read ---------------------------------------------------------------------


@contextmanager
def translating_errors(path: Path, fix: str) -> Iterator[None]:
    """Raise DatasetMissing for any OSError; `fix` is for a path that is not there."""
    try:
        yield
    except FileNotFoundError as error:
        fix = fix or "give --dataset the path of a file or a directory, or leave it out"
        fix += f"; `ls -l {shlex.quote(show(path.parent))}` shows what is there"
        raise DatasetMissing(f"{show(path)}: there is no such file", fix) from error
    except OSError as error:
        place = show(error.filename or path)
        fix = f"make it readable: `chmod u+rX {shlex.quote(place)}`, or copy it elsewhere"
        raise DatasetMissing(f"{place}: can't be read ({error.strerror})", fix) from error


def refuse_special(path: Path, mode: int) -> None:
    """Raise DatasetMissing unless `mode` is that of a regular file."""
    if not stat.S_ISREG(mode):
        fix = f"write it to a file: `cat {shlex.quote(show(path))} > dataset.csv`, then --dataset "
        raise DatasetMissing(f"{show(path)}: is not a regular file", f"{fix}dataset.csv")
