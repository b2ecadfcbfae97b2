"""The record that a run appends: drawn from the file's values, the same on each attempt."""

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


def draw_record(path: Path, size: int, seed: str) -> bytes:
    """Return a line to append to the first `size` bytes of the CSV `path`, newline included.

    Each column's value is drawn from the file's values of that column, by a generator seeded with
    `seed`; the integer key column, if there is one, gets its highest value plus one.
    The key column of the whole file is read but not kept. Raise StepError when the file has no
    header or no record, or when a record drawn from has another number of fields.
    """
    chance = random.Random(seed)
    with path.open("rb") as file:
        header = read_header(file, size)
        columns = parse_line(header)
        values = [
            sample_record(file, len(header), size, chance, columns)[column]
            for column in range(len(columns))
        ]
        key = find_key_column(columns, values)
        if key is not None and (last := find_highest(file, len(header), size, key)) is not None:
            values[key] = str(last + 1)
    return format_line(values)


def read_header(file: BinaryIO, size: int) -> bytes:
    """Return the header, newline included. Raise StepError unless complete lines of LF follow."""
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


def sample_record(
    file: BinaryIO, start: int, size: int, chance: random.Random, columns: list[str]
) -> list[str]:
    """Return the fields of the record after a random byte (after the last record, the first)."""
    offset = start + int(chance.random() * (size - start))
    file.seek(offset - 1)
    file.readline()
    if file.tell() >= size:
        file.seek(start)
    at = file.tell()
    values = parse_line(file.readline())
    if len(values) != len(columns):
        raise StepError(
            f"the record at byte {at} has {len(values)} fields, the header {len(columns)}"
        )
    return values


def parse_line(line: bytes) -> list[str]:
    """Return the fields of one line of CSV. Raise StepError unless it is CSV in UTF-8."""
    return next(parse_rows(line), [])


def parse_rows(block: bytes) -> Iterator[list[str]]:
    """Yield the records of whole lines of CSV. Raise StepError unless they are CSV in UTF-8."""
    try:
        yield from csv.reader(block.decode("utf-8").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise StepError(f"the dataset is not UTF-8: {error}") from error
    except csv.Error as error:
        raise StepError(f"the dataset has a line that is not CSV: {error}") from error


def find_key_column(columns: list[str], values: list[str]) -> int | None:
    """Return the first column that is named like a key and holds an integer, or None."""
    for index, (name, value) in enumerate(zip(columns, values, strict=True)):
        if KEY_NAME.fullmatch(name.strip()) and INTEGER.fullmatch(value.encode()):
            return index
    return None


def find_highest(file: BinaryIO, start: int, size: int, column: int) -> int | None:
    """Return an integer column's highest value, or None if one of its values is no integer."""
    top: int | None = None
    file.seek(start)
    for block in read_line_blocks(file, size - start):
        cells = column_cells(block, column)
        if not INTEGERS.fullmatch(b"\n".join(cells)):  # no cell holds a newline
            return None
        highest_here = max(int(cell) for cell in cells)
        top = highest_here if top is None else max(top, highest_here)
    return top


def read_line_blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the next `size` bytes in blocks that end where a line ends."""
    while size > 0 and (block := file.read(min(BLOCK, size))):
        if not block.endswith(b"\n"):
            block += file.readline()
        size -= len(block)
        yield block


def column_cells(block: bytes, column: int) -> list[bytes]:
    """Return one column's cells; the block is parsed as CSV only if it has quotes."""
    if b'"' not in block:
        # Each match takes the rest of its line, too: searching for the next line's start is slow.
        return re.findall(rb"(?:[^,\n]*,){%d}([^,\n]*)[^\n]*\n" % column, block)
    return [row[column].encode() if column < len(row) else b"" for row in parse_rows(block)]


def format_line(values: list[str]) -> bytes:
    """Return the fields as one line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
