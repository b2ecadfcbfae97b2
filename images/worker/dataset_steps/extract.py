"""`extract`: take a summary's columns out of the newest version of the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataset_steps import kept
from dataset_steps.files import atomic_csv_writer, read_blocks
from dataset_steps.pull import pull
from dataset_steps.settings import Settings
from dataset_steps.table import NoRecord, Table
from dataset_steps.transform import COLUMNS, EXTRACT
from dataset_steps.workspace import Workspace


def extract(settings: Settings, workspace: Workspace, env: Mapping[str, str]) -> None:
    """Pull the newest dataset and write its COLUMNS to `extract.csv` in the workspace.

    A retry works on the very version that the first attempt pulled.
    """
    keep = kept.parse_keep_hours(env)
    if keep is not None:
        kept.sweep(settings, workspace, keep)
    try:
        pull(settings, workspace)
    finally:
        if keep is not None:
            kept.write_note(settings, workspace)
    count = write_columns(workspace.dataset, workspace.root / EXTRACT)
    print(f"extracted {', '.join(COLUMNS)} of {count} records")


def write_columns(source: Path, into: Path) -> int:
    """Write COLUMNS of the CSV `source` to `into`, atomically. Return the number of records.

    Raise TableError when the file lacks such a column or a record, or is no CSV. Memory stays the
    same for every dataset size.
    """
    count = 0
    with source.open("rb") as file, atomic_csv_writer(into) as writer:
        table = Table(read_blocks(file), source.name)
        places = table.find_columns(COLUMNS)
        writer.writerow(COLUMNS)
        for count, row in enumerate(table.rows(), start=1):  # noqa: B007
            writer.writerow([row[place] for place in places])
        if not count:
            raise NoRecord(f"{source.name}: has no record", "append one")
    return count
