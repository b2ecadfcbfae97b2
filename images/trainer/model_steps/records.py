"""The dataset, read line by line: split into two parts, and a part as what a model learns from."""

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
from dataset_steps.files import whole_csv
from dataset_steps.record import rows, whole_lines
from model_steps import schema
from model_steps.schema import HELD_OUT, PART, TARGET, TRAINING, Schema

LEAST = 50  # records of each answer in each part: below, the metrics would say nothing
ANSWERS = 2


@dataclass
class Split:
    """What is known of a dataset while it is split."""

    header: list[str]
    kinds: list[str | None] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by part and answer

    def __post_init__(self) -> None:
        self.kinds = [None] * len(self.header)
        self.target, self.part = self.header.index(TARGET), self.header.index(PART)

    def add(self, row: list[str], line: int) -> str:
        """The part that the record belongs to; it is counted. Raises StepError."""
        if len(row) != len(self.header):
            raise StepError(
                f"line {line} of the dataset has {len(row)} fields, its header {len(self.header)}"
            )
        part, answer = row[self.part], row[self.target]
        if part not in (TRAINING, HELD_OUT):
            raise StepError(
                f"line {line} of the dataset has {part!r} in the column {PART}; "
                f"it must be {TRAINING} or {HELD_OUT}"
            )
        self.kinds = [schema.widened(*pair) for pair in zip(self.kinds, row, strict=True)]
        self.count(part, answer, line)
        return part

    def count(self, part: str, answer: str, line: int) -> None:
        self.counts[part, answer] += 1
        answers = sorted({answer for _, answer in self.counts})
        if not answer or len(answers) > ANSWERS:
            raise StepError(
                f"line {line} of the dataset has {answer!r} in the column {TARGET}: "
                f"the model tells {ANSWERS} answers apart, {' and '.join(answers[:ANSWERS])}"
            )

    def size_of(self, part: str) -> int:
        """How many records belong to a part."""
        return sum(count for (other, _), count in self.counts.items() if other == part)

    def schema(self) -> Schema:
        """The schema of all records that were added."""
        kinds = [kind or schema.TEXT for kind in self.kinds]
        return Schema(dict(zip(self.header, kinds, strict=True)))

    def refuse_too_few(self) -> None:
        """Raises StepError when a part has too few records of an answer."""
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
    """The two files hold the dataset's records, features first and the answer last.

    Memory stays the same for every dataset size. Raises StepError when no model can be trained.
    """
    with ExitStack() as stack:
        file = stack.enter_context(dataset.open("rb"))
        size = dataset.stat().st_size
        lines = (row for block in whole_lines(file, size) for row in rows(block))
        found = Split(schema.named(next(lines, [])))
        columns = [*Schema(dict.fromkeys(found.header, "")).features, TARGET]
        places = [found.header.index(name) for name in columns]
        writers = {
            part: stack.enter_context(whole_csv(path))
            for part, path in ((TRAINING, training), (HELD_OUT, held_out))
        }
        for line, row in enumerate(lines, start=2):
            writers[found.add(row, line)].writerow([row[place] for place in places])
    found.refuse_too_few()
    return found


class Part(NamedTuple):
    """The records of one part: what a model is given, and what it should answer."""

    features: np.ndarray[Any, np.dtype[np.object_]]
    answers: np.ndarray[Any, np.dtype[np.str_]]


def read(path: Path, known: Schema) -> Part:
    """The records of one of `split`'s files; each text is kept once, however often it occurs."""
    texts: dict[str, str] = {}
    categories = set(known.categories)
    columns: list[Any] = [[] if i in categories else array("d") for i in range(len(known.features))]
    answers: list[str] = []
    for *values, answer in lines_of(path):
        for i, (column, value) in enumerate(zip(columns, values, strict=True)):
            column.append(texts.setdefault(value, value) if i in categories else number(value))
        answers.append(texts.setdefault(answer, answer))
    features = np.empty((len(answers), len(columns)), dtype=object)
    for i, column in enumerate(columns):
        features[:, i] = column
    return Part(features, np.array(answers))


def lines_of(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


def number(value: str) -> float:
    """An empty field is a value that nobody knows."""
    return float(value) if value else float("nan")
