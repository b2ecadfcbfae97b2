"""The record that a run appends: drawn from what the file holds, the same on each attempt."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dataset_steps.errors import StepError

KEY_NAME = re.compile(r"(?i:(.*[ _-])?(id|key|index|no|number))|.*[a-z](Id|ID)")
INTEGER = re.compile(rb"[ \t]*-?\d{1,18}[ \t]*")
INTEGERS = re.compile(rb"(?:%b\n)*%b" % (INTEGER.pattern, INTEGER.pattern))
BLOCK = 4 << 20  # bytes read at a time; memory stays the same for every dataset size


def draw(path: Path, size: int, seed: str) -> bytes:
    """One line to append to the first `size` bytes of the CSV `path`, newline included.

    Each column's value is one that the file holds in that column, chosen by a generator seeded
    with `seed`; the integer key column, where there is one, gets its highest value plus one.
    Reads the key column of the whole file but keeps none of it. Raises StepError when the file
    has no header or no record, or when a record drawn from has another number of fields.
    """
    chance = random.Random(seed)
    with path.open("rb") as file:
        header = first_line(file, size)
        columns = fields(header)
        values = [
            sample(file, len(header), size, chance, columns)[column]
            for column in range(len(columns))
        ]
        key = key_column(columns, values)
        if key is not None and (last := highest(file, len(header), size, key)) is not None:
            values[key] = str(last + 1)
    return line_of(values)


def first_line(file: BinaryIO, size: int) -> bytes:
    """The header, newline included. Raises StepError when nothing follows it."""
    header = file.readline()
    if not header.endswith(b"\n") or len(header) >= size:
        raise StepError("the dataset has no record to draw from")
    if header == b"\n":
        raise StepError("the dataset's first line is empty: it must name the columns")
    if header.endswith(b"\r\n"):
        raise StepError("the dataset's lines end in CRLF: convert them to LF first")
    file.seek(size - 1)
    if file.read(1) != b"\n":
        raise StepError("the dataset's last line has no newline: a record can't be appended to it")
    return header


def sample(
    file: BinaryIO, start: int, size: int, chance: random.Random, columns: list[str]
) -> list[str]:
    """The fields of the record that follows a random byte (of the first one, after the last)."""
    offset = start + int(chance.random() * (size - start))
    file.seek(offset - 1)
    file.readline()
    if file.tell() >= size:
        file.seek(start)
    at = file.tell()
    values = fields(file.readline())
    if len(values) != len(columns):
        raise StepError(
            f"the record at byte {at} has {len(values)} fields, the header {len(columns)}"
        )
    return values


def fields(line: bytes) -> list[str]:
    """The fields of one line of CSV. Raises StepError when it is none, or not UTF-8."""
    return next(rows(line), [])


def rows(block: bytes) -> Iterator[list[str]]:
    """The records of whole lines of CSV. Raises StepError when they are none, or not UTF-8."""
    try:
        yield from csv.reader(block.decode("utf-8").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise StepError(f"the dataset is not UTF-8: {error}") from error
    except csv.Error as error:
        raise StepError(f"the dataset has a line that is not CSV: {error}") from error


def key_column(columns: list[str], values: list[str]) -> int | None:
    """The first column that is called like a key and holds an integer."""
    for index, (name, value) in enumerate(zip(columns, values, strict=True)):
        if KEY_NAME.fullmatch(name.strip()) and INTEGER.fullmatch(value.encode()):
            return index
    return None


def highest(file: BinaryIO, start: int, size: int, column: int) -> int | None:
    """The highest value of an integer column, or None when one of its values is no integer."""
    top: int | None = None
    file.seek(start)
    for block in whole_lines(file, size - start):
        cells = cells_of(block, column)
        if not INTEGERS.fullmatch(b"\n".join(cells)):  # which no cell holds
            return None
        highest_here = max(int(cell) for cell in cells)
        top = highest_here if top is None else max(top, highest_here)
    return top


def whole_lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes in blocks that end where a line ends."""
    while size > 0 and (block := file.read(min(BLOCK, size))):
        if not block.endswith(b"\n"):
            block += file.readline()
        size -= len(block)
        yield block


def cells_of(block: bytes, column: int) -> list[bytes]:
    """One column's cells; only where there are quotes is the block parsed as CSV."""
    if b'"' not in block:
        # Each match takes the rest of its line, too: searching for the next line's start is slow.
        return re.findall(rb"(?:[^,\n]*,){%d}([^,\n]*)[^\n]*\n" % column, block)
    return [row[column].encode() if column < len(row) else b"" for row in rows(block)]


def line_of(values: list[str]) -> bytes:
    """The fields as one line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
