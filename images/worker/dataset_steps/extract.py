"""`extract`: take a summary's columns out of the newest version of the dataset."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from dataset_steps import kept
from dataset_steps.errors import StepError
from dataset_steps.files import atomic_csv_writer
from dataset_steps.pull import pull
from dataset_steps.settings import Settings
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

    Raise StepError when the file lacks such a column, or is no CSV. Memory stays the same for
    every dataset size.
    """
    count = -1  # the first line names the columns
    with atomic_csv_writer(into) as writer:
        for count, row in enumerate(read_columns(source)):  # noqa: B007
            writer.writerow(row)
        if count < 1:
            raise StepError(f"{source.name} has no record")
    return count


def read_columns(source: Path) -> Iterator[list[str]]:
    """Yield the names of COLUMNS, then their fields of each record. Raise StepError."""
    with source.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            places = find_columns(header, source.name)
            yield list(COLUMNS)
            for row in reader:
                if len(row) != len(header):
                    raise StepError(
                        f"line {reader.line_num} of {source.name} has {len(row)} fields, "
                        f"the header {len(header)}"
                    )
                yield [row[place] for place in places]
        except UnicodeDecodeError as error:
            raise StepError(f"{source.name} is not UTF-8: {error}") from error
        except csv.Error as error:
            raise StepError(f"line {reader.line_num} of {source.name}: {error}") from error


def find_columns(header: list[str], name: str) -> list[int]:
    """Return the positions of COLUMNS. Raise StepError naming each that is missing."""
    if missing := [column for column in COLUMNS if column not in header]:
        raise StepError(
            f"{name} lacks the column {' and the column '.join(missing)}: "
            f"a summary is made of {', '.join(COLUMNS)}"
        )
    return [header.index(column) for column in COLUMNS]
