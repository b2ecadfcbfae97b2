"""`modify`: append one record to the dataset."""

from __future__ import annotations

import os

from dataset_steps import record
from dataset_steps.errors import StepError
from dataset_steps.files import sync_to_disk
from dataset_steps.settings import Settings
from dataset_steps.workspace import Base, Change, Workspace


def modify(settings: Settings, workspace: Workspace) -> None:
    """Append one record to the pulled dataset; every other byte stays as it was.

    The record depends on the run and on the version only. An attempt first truncates what an
    earlier one may have appended, so it always leaves the very same bytes.
    """
    base = workspace.read_base()
    if base is None:
        raise StepError("nothing was pulled into this run's workspace: run the pull step first")
    seed = f"{workspace.key}/{base.md5}"
    drawn = record.draw_record(workspace.dataset, base.size, seed, settings.key_column)
    append(workspace, base, drawn.content)
    workspace.record_change(Change(base.md5, base.size + len(drawn.content)))
    print(f"appended {drawn.text}\n{drawn.keys}")


def append(workspace: Workspace, base: Base, line: bytes) -> None:
    with workspace.dataset.open("r+b") as file:
        file.truncate(base.size)
        file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        sync_to_disk(file.fileno())
