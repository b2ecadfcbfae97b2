"""The column that a run counts on: told by the DAG's param, or guessed, and said in the log."""

from __future__ import annotations

import heapq
import re
import tempfile
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO

from dataset_steps.errors import StepError
from dataset_steps.table import Table

# Not `number` or `no`: a house has one, and it is not the house's key.
KEY_NAME = re.compile(r"(?i:(.*[ _-])?(id|key|pk)|index|row[ _-]?id)|.*[a-z](Id|ID|Key)")
INDEX_NAMES = ("", "Unnamed: 0")  # of the column in which pandas writes a table's index
DIGITS = re.compile(r"[0-9]+$")
MOST_IN_MEMORY = 1 << 19  # numbers
TELL = """the param `key` of the run tells which one, as in --conf '{"key": "NAME"}'"""


class Distinct:
    """Numbers of which it can be asked whether all differ; most of them are in files."""

    def __init__(self, folder: Path) -> None:
        """Keep the numbers in nameless files of this folder."""
        self.folder = folder
        self.newest = array("q")
        self.files: list[tuple[int, int, IO[bytes]]] = []  # with lowest and highest number
        self.differ = True

    def add(self, numbers: list[int]) -> None:
        """Add numbers of at most 18 digits."""
        self.newest.extend(numbers if self.differ else ())
        if len(self.newest) >= MOST_IN_MEMORY:
            self.store()

    def store(self) -> None:
        """Write the newest numbers to a file, sorted."""
        numbers = array("q", sorted(self.newest))
        self.newest = array("q")
        self.differ = self.differ and all(a != b for a, b in pairwise(numbers))
        file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # read in `all_differ`
        numbers.tofile(file)
        self.files.append((numbers[0], numbers[-1], file))

    def all_differ(self) -> bool:
        """Return whether no number was added twice; nothing can be added afterwards."""
        if not self.files:
            return len(set(self.newest)) == len(self.newest)
        if self.newest:
            self.store()
        self.files.sort(key=lambda entry: entry[:2])
        if all(before[1] < after[0] for before, after in pairwise(self.files)):
            return self.differ
        merged = heapq.merge(*(read_numbers(file) for *_, file in self.files))
        return self.differ and all(a != b for a, b in pairwise(merged))


def read_numbers(file: IO[bytes]) -> Iterator[int]:
    """Yield the numbers in a file of `Distinct`."""
    file.seek(0)
    while block := file.read(1 << 16):
        yield from array("q", block)


class KeyColumn:
    """The values of a column that may be a key: a common beginning, and digits."""

    def __init__(self, place: int, name: str, folder: Path) -> None:
        """Keep many values in nameless files of `folder`."""
        self.place, self.name = place, name
        self.distinct = Distinct(folder)
        self.beginning = ""
        self.form: re.Pattern[str] | None = None
        self.highest, self.width = -1, 0
        self.odd: str | None = None  # a value that can't be counted on

    def add(self, values: list[str]) -> None:
        """Add the values of the next records."""
        if self.odd is not None or not values:
            return
        if self.form is None:
            self.beginning = DIGITS.sub("", values[0].strip(" \t"))
            begin = re.escape(self.beginning)
            self.form = re.compile(rf"(?:[ \t]*{begin}[0-9]{{1,18}}[ \t]*\n)*")
        lines = "\n".join(values) + "\n"
        if lines.count("\n") != len(values) or not self.form.fullmatch(lines):
            self.odd = next((v for v in values if not self.form.fullmatch(f"{v}\n")), values[0])
            return
        size = len(self.beginning)
        digits = [value.strip(" \t")[size:] for value in values] if size else values
        numbers = list(map(int, digits))
        self.distinct.add(numbers)
        if (highest := max(numbers)) > self.highest:
            self.highest = highest
            self.width = len(digits[numbers.index(highest)].strip())

    def next_digits(self) -> str:
        """Return the digits of the highest value plus one, as wide: 000125 follows 000124."""
        return str(self.highest + 1).zfill(self.width)


class Keys:
    """The columns of a table that may be counted on, and which of them are."""

    def __init__(self, table: Table, told: str, folder: Path) -> None:
        """Take the column named `told`; else the one that is named like a key, and pandas' index.

        Raise NoColumn when there is no column `told`.
        """
        self.told = told
        names = table.columns
        self.named = [i for i, name in enumerate(names) if KEY_NAME.fullmatch(name.strip())]
        places = self.named if len(self.named) == 1 else []
        if told:
            places = table.find_columns([told])
        elif names[0].strip() in INDEX_NAMES:
            places = [0, *places]
        self.columns = [KeyColumn(place, names[place], folder) for place in places]
        self.names = [names[place] for place in self.named]
        self.counted: list[KeyColumn] = []

    def find_counted(self) -> list[KeyColumn]:
        """Return the columns to count on, after all values were added.

        Raise StepError when the column that was told can't be.
        """
        for column in self.columns:
            if self.told and column.odd is not None:
                what = f"the column {column.name!r} can't be counted on: it holds "
                fix = "name another one as the param `key`, or none"
                raise StepError(f"{what}{column.odd[:60]!r}; {fix}")
            if column.odd is None and (self.told or column.distinct.all_differ()):
                self.counted.append(column)
        return self.counted

    def explain(self) -> str:
        """Return which columns are counted on, and why."""
        if self.told:
            return f"counted on the column {self.told!r}, as the param `key` says"
        listed = " and ".join(repr(c.name) if c.name else "without a name" for c in self.counted)
        where = f"the column {listed}" if self.counted else "no column"
        return f"counted on {where}: {self.explain_guess()}"

    def explain_guess(self) -> str:
        """Return why these columns were chosen, or none."""
        counted = [column.name for column in self.counted]
        if len(self.names) > 1:
            listed = ", ".join(self.names)
            return f"{len(self.names)} columns are named like a key ({listed}); {TELL}"
        if self.names and self.names[0] not in counted:
            return f"{self.names[0]!r} repeats a value or has one that is not counted; {TELL}"
        if not self.names and not counted:
            return f"none is named like a key; {TELL}"
        return "its values differ, and it alone is named like a key or is the index of pandas"
