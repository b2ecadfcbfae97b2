"""The one reader of CSV: the dialect, the header and the records of a table, and its limits.

It takes what pandas takes: any line end, quoted line breaks, a byte order mark, blank lines, one
column, columns without a name; the separator is found. What is no text in UTF-8, has no header or
is ragged is refused, wherever that is in the file.

Airflow's image has this module, too (manifests/airflow/values.yaml): it imports the standard
library and `errors` only.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import shlex
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from dataset_steps.errors import StepError

BLOCK = 1 << 20  # bytes of a block; memory stays the same for every size of a table
LONGEST_RECORD = 16 << 20  # bytes; it bounds the memory
SEPARATORS = (",", ";", "\t", "|")  # in the order in which they are tried
SAMPLE = 1 << 16  # bytes that are read before the separator is looked for
SAMPLED_RECORDS = 50  # in which it is looked for
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# The csv module's own limit is 128 KiB, for the whole process.
csv.field_size_limit(LONGEST_RECORD + 2 * BLOCK)


class TableError(StepError):
    """The table can't be used. `kind` names the fault, `fix` says what to do about it."""

    kind = "unusable"

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.what, self.fix = what, fix


class NotText(TableError):
    """The bytes are no text in UTF-8."""

    kind = "not_text"


class NoHeader(TableError):
    """The first line does not name the columns."""

    kind = "no_header"


class NoRecord(TableError):
    """There is no record."""

    kind = "no_record"


class Ragged(TableError):
    """A record has more or fewer fields than the header, or does not end."""

    kind = "ragged"


class NoColumn(TableError):
    """There is no column of a name, or more than one."""

    kind = "no_column"


class Records(NamedTuple):
    """The whole records at the beginning of some bytes, and how many of the bytes they take."""

    rows: list[list[str]]
    starts: list[int]  # the offset of each record in the bytes
    used: int


@dataclass(frozen=True)
class Block:
    """Whole records of a table. Where `records` is None each line is one, and has no quote."""

    data: bytes
    offset: int  # of `data` in the file
    line: int  # the number of its first line, from 1
    separator: str
    records: Records | None

    def rows(self) -> Iterable[list[str]]:
        """Return the fields of each record."""
        if self.records is not None:
            return self.records.rows
        text = io.StringIO(self.data.decode(), newline="")
        return csv.reader(text, delimiter=self.separator)

    def read_column(self, place: int) -> list[str]:
        """Return each record's field in one column; the records have as many fields."""
        if self.records is not None:
            return [row[place] for row in self.records.rows]
        separator = re.escape(self.separator.encode())
        other = rb"[^%b\r\n]*" % separator
        # Each match takes the rest of its line, too: searching for the next line's start is slow.
        line = rb"(?:%b%b){%d}(%b)[^\r\n]*[\r\n]+" % (other, separator, place, other)
        found = re.findall(line, self.data if ends_line(self.data) else self.data + b"\n")
        return b"\n".join(found).decode().split("\n")

    def count_records(self) -> int:
        """Return the number of records."""
        if self.records is not None:
            return len(self.records.rows)
        return count_lines(self.data) + (not ends_line(self.data))

    def find_record(self, offset: int) -> tuple[int, int]:
        """Return where the record begins and ends that has the file's byte `offset`.

        Its line end belongs to it, and so do blank lines after it. Of an offset before or after the
        block it is the first or the last record.
        """
        at = min(max(offset - self.offset, 0), len(self.data) - 1)
        if self.records is None:
            mark = b"\n" if b"\n" in self.data else b"\r"
            start = self.data.rfind(mark, 0, at) + 1
            end = self.data.find(mark, at) + 1 or len(self.data)
        else:
            starts = self.records.starts
            index = max(bisect_right(starts, at), 1)
            start = starts[index - 1]
            end = starts[index] if index < len(starts) else len(self.data)
        return self.offset + start, self.offset + end


class Table:
    """A table whose bytes arrive in blocks. Its dialect and its header are read at once."""

    def __init__(self, blocks: Iterable[bytes], name: str) -> None:
        """Read the header; `name` is what errors call the table. Raise TableError."""
        self.name = name
        self.source = iter(blocks)
        self.data = b""  # what has arrived and is not taken yet
        self.offset, self.line = 0, 1  # of `data` in the file
        self.is_whole = False  # whether all bytes have arrived
        while not self.is_whole and (len(self.data) < SAMPLE or not count_lines(self.data)):
            self.receive()
        if self.data.startswith(codecs.BOM_UTF8):
            self.take(len(codecs.BOM_UTF8))
        self.separator = self.find_separator()
        header = self.take_header()
        self.line_end = find_line_end(header) or "\n"
        self.columns = tuple(next(csv.reader(split_text(header), delimiter=self.separator)))
        self.body = self.offset
        self.refuse_missing_names()

    # --- The bytes ------------------------------------------------------------------------------

    def receive(self) -> None:
        """Append the next block to `data`. Raise Ragged when a record is too long."""
        block = next(self.source, None)
        if block is None:
            self.is_whole = True
            return
        self.data += block
        if not self.offset:
            self.refuse_other_encoding()
        if (at := block.find(b"\0")) >= 0:
            at += len(self.data) - len(block)
            line = self.line + count_lines(self.data[:at])
            what = f"has a NUL byte at offset {self.offset + at}, in line {line}"
            raise self.not_text(what, r"tr -d '\000'")
        if len(self.data) > LONGEST_RECORD + BLOCK:
            what = f"{self.name}: the record in line {self.line} is longer than "
            fix = f"is a quote in it never closed? See {self.show_line(self.line)}"
            raise Ragged(f"{what}{LONGEST_RECORD >> 20} MiB", fix)

    def take(self, size: int) -> bytes:
        """Remove the first `size` bytes from `data` and return them."""
        taken, self.data = self.data[:size], self.data[size:]
        self.offset += size
        self.line += count_lines(taken)
        return taken

    def split(self, separator: str, most: int | None = None) -> Records:
        """Return the whole records that `data` begins with, at most so many. Raise NotText."""
        try:
            return split_records(self.data, separator, self.is_whole, most)
        except UnicodeDecodeError:
            raise self.find_bad_byte() from None

    # --- The dialect and the header ---------------------------------------------------------------

    def refuse_other_encoding(self) -> None:
        """Raise NotText when a byte order mark names another encoding than UTF-8."""
        for mark, encoding in OTHER_ENCODINGS.items():
            if self.data.startswith(mark):
                raise self.not_text(f"is {encoding}", f"iconv -f {encoding} -t UTF-8")

    def find_separator(self) -> str:
        """Return the first separator by which the first records are a regular table.

        When there is none, the one that most of the header's fields are separated by.
        """
        widths = dict.fromkeys(SEPARATORS, 0)
        for separator in SEPARATORS:
            rows = self.split(separator, SAMPLED_RECORDS).rows
            widths[separator] = len(rows[0]) if rows else 0
            if widths[separator] > 1 and all(len(row) == widths[separator] for row in rows):
                return separator
        return max(SEPARATORS, key=lambda separator: widths[separator])

    def take_header(self) -> bytes:
        """Take the header and the blank lines before it. Return its bytes."""
        while not (found := self.split(self.separator, 1)).rows:
            if self.is_whole:
                raise NoRecord(f"{self.name}: is empty", "export it again, with its header")
            self.receive()
        self.take(found.starts[0])
        return self.take(found.used - found.starts[0])

    def refuse_missing_names(self) -> None:
        """Raise NoHeader when the first line names no column: it is blank, or all numbers.

        `,0,1,2` names the columns of a pandas table, after its index.
        """
        first, *others = self.columns
        numbers = {name for name in others if NUMBER.fullmatch(name.strip())}
        if not first.strip() and numbers and len(numbers) == len(others):
            return
        if all(not name.strip() or NUMBER.fullmatch(name.strip()) for name in self.columns):
            shown = self.separator.join(self.columns)[:60]
            raise NoHeader(
                f"{self.name}: has no header: its first line is {shown!r}",
                "put a line with the columns' names above the first record",
            )

    def find_columns(self, names: Sequence[str]) -> list[int]:
        """Return the places of the columns of these names. Raise NoColumn."""
        if missing := [name for name in names if name not in self.columns]:
            what = f"{self.name}: has no column {' and no column '.join(missing)}"
            raise NoColumn(what, f"it has {', '.join(self.columns)}")
        if double := [name for name in names if self.columns.count(name) > 1]:
            what = f"{self.name}: has more than one column {' and more than one '.join(double)}"
            raise NoColumn(what, "give each a name of its own")
        return [self.columns.index(name) for name in names]

    # --- The records ------------------------------------------------------------------------------

    def blocks(self) -> Iterator[Block]:
        """Yield all records, in blocks, whatever the number of their fields. Raise TableError."""
        while True:
            if block := self.take_block():
                yield block
            if self.is_whole and not self.data:
                return
            self.receive()

    def regular_blocks(self) -> Iterator[Block]:
        """Yield all records, in blocks. Raise TableError, Ragged among them."""
        for block in self.blocks():
            if block.records is not None:
                self.refuse_ragged(block, block.records)
            yield block

    def rows(self) -> Iterator[list[str]]:
        """Yield the fields of each record. Raise TableError, Ragged among them."""
        for block in self.regular_blocks():
            yield from block.rows()

    def take_block(self) -> Block | None:
        """Take the whole records that have arrived; None when there is none."""
        offset, line = self.offset, self.line
        if b'"' not in self.data:
            size = len(self.data) if self.is_whole else self.data.rfind(b"\n") + 1
            if self.is_regular(self.data[:size]):
                return Block(self.take(size), offset, line, self.separator, None)
        found = self.split(self.separator)
        if self.is_whole and found.used < len(self.data):
            unclosed = line + count_lines(self.data[: found.used])
            fix = "close it, or double it if it belongs to the text; see "
            what = f"{self.name}: a quote in the record of line {unclosed} is never closed"
            raise Ragged(what, fix + self.show_line(unclosed))
        data = self.take(found.used)
        return Block(data, offset, line, self.separator, found) if found.rows else None

    def is_regular(self, data: bytes) -> bool:
        """Return whether each line is surely a record; fast, as no Python runs for each line.

        False may only mean that lines are blank or end in another way than the header.
        """
        if len(self.columns) == 1 or not data:  # a blank line would count as a record
            return False
        if not ends_line(data):
            data += self.line_end.encode()
        marks = self.separator.encode() + b"\r\n"
        separators = data.translate(None, bytes(set(range(256)) - set(marks)))
        expected = self.separator.encode() * (len(self.columns) - 1) + self.line_end.encode()
        if separators != expected * (len(separators) // len(expected)):
            return False
        try:
            return data.isascii() or bool(data.decode())
        except UnicodeDecodeError:
            raise self.find_bad_byte() from None

    def refuse_ragged(self, block: Block, records: Records) -> None:
        """Raise Ragged when a record has another number of fields than the header."""
        width = len(self.columns)
        for row, start in zip(records.rows, records.starts, strict=True):
            if len(row) != width:
                line = block.line + count_lines(block.data[:start])
                what = f"{self.name}: line {line} has {len(row)} fields, the header {width}"
                fix = "add what is missing, or put quotes around a field that has "
                raise Ragged(what, f"{fix}{self.separator!r} in it; see {self.show_line(line)}")

    # --- Errors -----------------------------------------------------------------------------------

    def show_line(self, line: int) -> str:
        """Return the command that shows a line's beginning."""
        return f"`sed -n {line}p {shlex.quote(self.name)} | cut -c 1-500`"

    def find_bad_byte(self) -> NotText:
        """Return the error for the first of the arrived bytes that is not UTF-8."""
        try:
            self.data.decode()
        except UnicodeDecodeError as error:
            at = error.start
            line = self.line + count_lines(self.data[:at])
            where = f"at offset {self.offset + at}, in line {line}"
            return self.not_text(f"byte 0x{self.data[at]:02X} {where}, is not UTF-8")
        raise AssertionError("all bytes are UTF-8")

    def not_text(self, what: str, command: str = "iconv -f WINDOWS-1252 -t UTF-8") -> NotText:
        """Return the error for a table that is no text, but perhaps is after this command."""
        name = shlex.quote(self.name)
        ending = PurePath(self.name).suffix
        new = shlex.quote(f"{self.name.removesuffix(ending)}.utf-8{ending}")
        fix = f"convert it (name the encoding that it really has): `{command} < {name} > {new}`"
        return NotText(f"{self.name}: {what}", fix)


def split_records(data: bytes, separator: str, is_whole: bool, most: int | None) -> Records:
    """Return the whole records that `data` begins with, at most so many, without blank lines.

    Unless `is_whole`, what follows the last line end is left for later: it may go on. Raise
    UnicodeDecodeError.
    """
    lines = data.splitlines(keepends=True)
    if lines and not is_whole and not data.endswith(b"\n"):  # after \r, \n may follow
        lines.pop()
    rows, starts, start = [], [], 0
    text = Lines(lines)
    for row in csv.reader(text, delimiter=separator):
        if text.is_exhausted:  # the reader asked for more: a quoted field goes on
            break
        if not is_blank(row):
            rows.append(row)
            starts.append(start)
        start = text.read
        if len(rows) == most:
            break
    return Records(rows, starts, start)


class Lines:
    """Lines as text, which counts the bytes that were read of them."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = iter(lines)
        self.read = 0  # bytes
        self.is_exhausted = False

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            self.read += len(line)
            yield line.decode()
        self.is_exhausted = True


def is_blank(row: list[str]) -> bool:
    """Return whether the line of these fields is one that pandas skips: empty, or only blanks."""
    return not row or (len(row) == 1 and row[0] != "" and not row[0].strip())


def split_text(data: bytes) -> Iterator[str]:
    """Return the lines of the text, line ends included."""
    return iter(io.StringIO(data.decode(), newline=""))


def find_line_end(data: bytes) -> str:
    """Return the line end of the last line, or nothing when it has none."""
    return next((end for end in ("\r\n", "\n", "\r") if data.endswith(end.encode())), "")


def ends_line(data: bytes) -> bool:
    """Return whether the last line has a line end."""
    return data.endswith((b"\n", b"\r"))


def count_lines(data: bytes) -> int:
    r"""Return the number of line ends: \n, \r\n and \r."""
    newlines = data.count(b"\n")
    return newlines + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else newlines
