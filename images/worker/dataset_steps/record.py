"""The record that a run appends: drawn from the file's values, the same on each attempt."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from dataset_steps.files import read_blocks
from dataset_steps.key import KeyColumn, Keys
from dataset_steps.table import Block, NoRecord, Table, find_line_end

LONGEST_SHOWN = 2000  # characters
LINE_END = re.compile(rb"[\r\n]")
LAST_DIGITS = re.compile(rb"[0-9]+(?=[^0-9]*$)")


@dataclass(frozen=True)
class Drawn:
    """The bytes to append, and which column was counted on, and why."""

    content: bytes
    keys: str

    @property
    def text(self) -> str:
        """The record without line ends around it; its beginning when it is long."""
        text = self.content.decode().strip("\r\n")
        return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def draw_record(path: Path, size: int, seed: str, key: str = "") -> Drawn:
    """Return what to append to the first `size` bytes of the CSV `path`: a record in its dialect.

    Each field is one of its column, as the file has it, drawn by a generator seeded with `seed`;
    the column `key` gets its highest value plus one (without `key`, see `Keys`). The whole file is
    read, and memory stays the same for every size. Raise TableError when it is no table, NoRecord
    when it has no record, and StepError when `key` can't be counted on.
    """
    with path.open("rb") as file:
        table = Table(read_blocks(file, size), path.name)
        keys = Keys(table, key, path.parent)
        fields = Fields(table, size, seed)
        for block in table.regular_blocks():
            for column in keys.columns:
                column.add(block.read_column(column.place))
            fields.take(block)
        raw = fields.finish()
        for column in keys.find_counted():
            raw[column.place] = count_on(raw[column.place], column)
        file.seek(max(size - 2, 0))
        end = find_line_end(file.read(min(size, 2)))
    line = table.separator.encode().join(raw)
    content = line + end.encode() if end else table.line_end.encode() + line
    return Drawn(content, keys.explain())


class Fields:
    """A field of each column, from the record at a random byte of the table."""

    def __init__(self, table: Table, size: int, seed: str) -> None:
        """Draw a byte of the table's `size` for each column, by a generator seeded with `seed`."""
        chance = random.Random(seed)
        self.name, self.separator = table.name, table.separator.encode()
        span = size - table.body
        places = [
            (table.body + int(chance.random() * span), column)
            for column in range(len(table.columns))
        ]
        self.places = sorted(places, reverse=True)  # the next one last
        self.drawn = [b""] * len(places)
        self.newest: Block | None = None

    def take(self, block: Block) -> None:
        """Take the fields whose bytes are in the block or before it."""
        self.newest = block
        self.take_until(block, block.offset + len(block.data))

    def finish(self) -> list[bytes]:
        """Return the fields, as the file has them. Raise NoRecord."""
        if self.newest is None:
            raise NoRecord(f"{self.name}: has no record", "append one: a run draws from it")
        # Only blank lines are after the last block: they belong to its last record.
        self.take_until(self.newest, self.places[0][0] + 1 if self.places else 0)
        return self.drawn

    def take_until(self, block: Block, end: int) -> None:
        """Take the fields whose bytes are before `end`; a record is split once for all of them."""
        start, stop, fields = -1, -1, []
        while self.places and self.places[-1][0] < end:
            offset, column = self.places.pop()
            if not start <= offset < stop:
                start, stop = block.find_record(offset)
                record = block.data[start - block.offset : stop - block.offset]
                fields = split_fields(record, self.separator)
            self.drawn[column] = fields[column]


def split_fields(record: bytes, separator: bytes) -> list[bytes]:
    """Return the fields of a record as they are written, quotes included."""
    if b'"' not in record:
        return LINE_END.split(record, maxsplit=1)[0].split(separator)
    other = rb"[^%b\r\n]*+" % re.escape(separator)
    # A quote inside of a field that does not begin with one is text.
    pattern = re.compile(rb'("(?:[^"]|"")*+"%b|%b)(%b?)' % (other, other, re.escape(separator)))
    fields, at, goes_on = [], 0, True
    while goes_on and (found := pattern.match(record, at)):
        fields.append(found[1])
        at, goes_on = found.end(), bool(found[2])
    return fields


def count_on(field: bytes, column: KeyColumn) -> bytes:
    """Return the field, written as before, with the digits that come next."""
    return LAST_DIGITS.sub(column.next_digits().encode(), field, count=1)
