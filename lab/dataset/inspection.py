"""The check of a user's own CSV, before anything is changed.

The steps' reader makes it, as a process: what a run can't read must not be taken.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def inspect(path: Path) -> Shape:
    """Return the shape of a CSV file that a run can append to.

    Raises DatasetMissing when there is no such file or it can't be read, and the error of FAULTS
    for the first thing in it that can't be right.
    """
    with translating_errors(path):
        refuse_non_file(path, path.stat().st_mode)
        path.open("rb").close()
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


@contextmanager
def translating_errors(path: Path) -> Iterator[None]:
    """Raise DatasetMissing for any OSError."""
    try:
        yield
    except FileNotFoundError as error:
        fix = "give --dataset the path of a CSV file, or leave it out for the lab's own; "
        fix += f"`ls -l {shlex.quote(str(path.parent))}` shows what is there"
        raise DatasetMissing(f"{path}: there is no such file", fix) from error
    except OSError as error:
        fix = f"make it readable: `chmod u+r {shlex.quote(str(path))}`, or copy it elsewhere"
        raise DatasetMissing(f"{path}: can't be read ({error.strerror})", fix) from error


def refuse_non_file(path: Path, mode: int) -> None:
    """Raise DatasetMissing unless `mode` is that of a regular file."""
    quoted = shlex.quote(str(path))
    if stat.S_ISDIR(mode):
        raise DatasetMissing(f"{path}: is a directory", f"name one file in it: `ls {quoted}`")
    if not stat.S_ISREG(mode):
        fix = f"write it to a file: `cat {quoted} > dataset.csv`, then --dataset dataset.csv"
        raise DatasetMissing(f"{path}: is not a regular file", fix)
