"""`extract`: take a summary's columns out of the dataset that was pulled."""

from __future__ import annotations

from pathlib import Path

from dataset_steps.contract import DATASET
from dataset_steps.errors import StepError
from dataset_steps.files import atomic_csv_writer, read_blocks
from dataset_steps.table import NoRecord, Table
from dataset_steps.transform import COLUMNS, EXTRACT
from dataset_steps.workspace import Workspace


def extract(workspace: Workspace) -> None:
    """Write the COLUMNS of the pulled dataset to `extract.csv` in the workspace.

    Raise StepError when nothing was pulled, and when it is no table with these columns.
    """
    base, place = workspace.require_pulled(DATASET), workspace.place(DATASET)
    if place.is_dir():
        raise StepError(f"{base.path} is a directory, and a summary is made of one CSV file")
    count = write_columns(place, workspace.root / EXTRACT)
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
