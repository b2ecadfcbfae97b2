"""`modify`: append one record to the dataset."""

from __future__ import annotations

import os
from pathlib import Path

from dataset_steps import record
from dataset_steps.contract import DATASET
from dataset_steps.errors import StepError
from dataset_steps.files import md5_of_prefix_and_all, sync_to_disk
from dataset_steps.settings import Settings
from dataset_steps.workspace import Pulled, Workspace


def modify(settings: Settings, workspace: Workspace) -> None:
    """Append one record to the pulled dataset; every other byte stays as it was.

    The record depends on the run and on the version only. An attempt first truncates what an
    earlier one may have appended, so it always leaves the very same bytes. Raise StepError when
    the file is not a table, or is no more what was pulled.
    """
    base, place = workspace.require_pulled(DATASET), workspace.place(DATASET)
    if place.is_dir():
        raise StepError(
            f"{base.path} is a directory, and a record is appended to a table: write a DAG with "
            "a step of your own for it"
        )
    seed = f"{workspace.key}/{base.md5}"
    drawn = record.draw_record(place, base.size, seed, settings.key_column)
    append(place, base, drawn.content)
    seal(workspace, place, base)
    print(f"appended {drawn.text}\n{drawn.keys}")


def append(place: Path, base: Pulled, line: bytes) -> None:
    with place.open("r+b") as file:
        file.truncate(base.size)
        file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        sync_to_disk(file.fileno())


def seal(workspace: Workspace, place: Path, base: Pulled) -> None:
    """Seal the dataset. Raise StepError unless it is the version that was pulled, and a record."""
    first, md5 = md5_of_prefix_and_all(place, base.size)
    if first != (base.bytes_md5 or base.md5):
        raise StepError(f"the workspace's copy of version {base.md5} was changed by somebody else")
    workspace.seal(DATASET, md5, place.stat().st_size)
