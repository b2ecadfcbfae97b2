"""`modify`: the dataset has one more record."""

from __future__ import annotations

import os

from dataset_steps import record
from dataset_steps.errors import StepError
from dataset_steps.files import flush
from dataset_steps.workspace import Base, Change, Workspace


def modify(workspace: Workspace) -> None:
    """The dataset is the pulled one and one record more; every other byte is as it was.

    The record depends on the run and on the version only. An attempt first cuts off what an
    earlier one may have appended, so it always leaves the very same bytes.
    """
    base = workspace.base()
    if base is None:
        raise StepError("nothing was pulled into this run's workspace: run the pull step first")
    line = record.draw(workspace.dataset, base.size, seed=f"{workspace.key}/{base.md5}")
    append(workspace, base, line)
    workspace.record_change(Change(base.md5, base.size + len(line)))
    print(f"appended {line.decode().rstrip()}")


def append(workspace: Workspace, base: Base, line: bytes) -> None:
    with workspace.dataset.open("r+b") as file:
        file.truncate(base.size)
        file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        flush(file.fileno())
