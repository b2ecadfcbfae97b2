"""The dataset, read record by record: its split into two parts, and a part as a model's input."""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset_steps.errors import StepError
from dataset_steps.files import atomic_csv_writer, read_blocks
from dataset_steps.table import Table
from model_steps import schema
from model_steps.schema import HELD_OUT, PART, TARGET, TRAINING, Schema

LEAST = 50  # records of each answer in each part; with fewer, the metrics mean nothing
ANSWERS = 2


@dataclass
class Split:
    """The state of a dataset's split: column types, and counts."""

    header: list[str]
    kinds: list[str | None] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by part and answer

    def __post_init__(self) -> None:
        self.kinds = [None] * len(self.header)
        self.target, self.part = self.header.index(TARGET), self.header.index(PART)

    def add(self, row: list[str], number: int) -> str:
        """Count a record and return the part that it belongs to. Raise StepError."""
        part, answer = row[self.part], row[self.target]
        if part not in (TRAINING, HELD_OUT):
            raise StepError(
                f"record {number} of the dataset has {part!r} in the column {PART}; "
                f"it must be {TRAINING} or {HELD_OUT}"
            )
        self.kinds = [schema.widen(*pair) for pair in zip(self.kinds, row, strict=True)]
        self.count(part, answer, number)
        return part

    def count(self, part: str, answer: str, number: int) -> None:
        self.counts[part, answer] += 1
        answers = sorted({answer for _, answer in self.counts})
        if not answer or len(answers) > ANSWERS:
            raise StepError(
                f"record {number} of the dataset has {answer!r} in the column {TARGET}: "
                f"the model tells {ANSWERS} answers apart, {' and '.join(answers[:ANSWERS])}"
            )

    def size_of(self, part: str) -> int:
        """Return the number of records in a part."""
        return sum(count for (other, _), count in self.counts.items() if other == part)

    def schema(self) -> Schema:
        """Return the schema of all records that were added."""
        kinds = [kind or schema.TEXT for kind in self.kinds]
        return Schema(dict(zip(self.header, kinds, strict=True)))

    def refuse_too_few(self) -> None:
        """Raise StepError when a part has too few records of an answer."""
        answers = sorted({answer for _, answer in self.counts})
        if len(answers) < ANSWERS:
            raise StepError(
                f"the column {TARGET} holds {' and '.join(answers) or 'nothing'} only: "
                f"the model tells {ANSWERS} answers apart"
            )
        for part, answer in product((TRAINING, HELD_OUT), answers):
            if (found := self.counts[part, answer]) < LEAST:
                raise StepError(
                    f"too few records: {found} of the part {part!r} have {answer!r} in the column "
                    f"{TARGET}, and {LEAST} are needed"
                )


def split(dataset: Path, training: Path, held_out: Path) -> Split:
    """Split the dataset's records into the two files, features first and the answer last.

    Memory stays the same for every dataset size. Raise StepError when no model can be trained.
    """
    with ExitStack() as stack:
        file = stack.enter_context(dataset.open("rb"))
        table = Table(read_blocks(file), dataset.name)
        found = Split(schema.check_header(list(table.columns)))
        columns = [*Schema(dict.fromkeys(found.header, "")).features, TARGET]
        places = [found.header.index(name) for name in columns]
        writers = {
            part: stack.enter_context(atomic_csv_writer(path))
            for part, path in ((TRAINING, training), (HELD_OUT, held_out))
        }
        for number, row in enumerate(table.rows(), start=1):
            writers[found.add(row, number)].writerow([row[place] for place in places])
    found.refuse_too_few()
    return found


class Part(NamedTuple):
    """The records of one part: a model's input, and the answers that it should give."""

    features: np.ndarray[Any, np.dtype[np.object_]]
    answers: np.ndarray[Any, np.dtype[np.str_]]


def read_part(path: Path, known: Schema) -> Part:
    """Read one of `split`'s files; each text is in memory once, however often it occurs."""
    texts: dict[str, str] = {}
    categories = set(known.categories)
    columns: list[Any] = [[] if i in categories else array("d") for i in range(len(known.features))]
    answers: list[str] = []
    for *values, answer in read_rows(path):
        for i, (column, value) in enumerate(zip(columns, values, strict=True)):
            column.append(
                texts.setdefault(value, value) if i in categories else parse_number(value)
            )
        answers.append(texts.setdefault(answer, answer))
    features = np.empty((len(answers), len(columns)), dtype=object)
    for i, column in enumerate(columns):
        features[:, i] = column
    return Part(features, np.array(answers))


def read_rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


def parse_number(value: str) -> float:
    """Return the number of a field; an empty one is a missing value, NaN."""
    return float(value) if value else float("nan")
