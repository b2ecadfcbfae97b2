"""The check of a user's own CSV.

A run appends records, so every line must be one whole record. The generated dataset has that
property; `inspect` refuses a file that lacks it before anything is uploaded.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import (
    DatasetEmpty,
    DatasetError,
    DatasetMissing,
    DatasetNotUtf8,
    DatasetOneColumn,
    DatasetRagged,
    DatasetWithCarriageReturns,
    DatasetWithoutFinalNewline,
    DatasetWithoutHeader,
    DatasetWithQuotedNewlines,
)

BLOCK = 2 << 20
"""Bytes that `inspect` reads at a time."""

LONGEST_LINE = 4 << 20
"""Bytes of the longest line that `inspect` accepts. It bounds the memory, so >= BLOCK."""

_BYTE_ORDER_MARKS_OF_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ALL_BUT_SEPARATORS = bytes(byte for byte in range(256) if byte not in b',\n"')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Shape:
    """Result of `inspect`: names, number of records (no header), bytes, md5 in lower-case hex."""

    columns: tuple[str, ...]
    records: int
    size: int
    md5: str


def inspect(path: Path) -> Shape:
    """Return the shape of a CSV file in which every line is one record.

    Reads the file once. Memory does not grow with the file: it stays below 20 MB, except when a
    single line has hundreds of thousands of fields.

    When several things are wrong, the error is the first of this list, wherever they are in the
    file. The file is therefore read to its end, except that the first byte refused by point 3
    ends the reading:

    1. DatasetMissing: does not exist, is not a regular file, can't be read;
    2. DatasetEmpty: no byte;
    3. DatasetNotUtf8: begins with a byte order mark, has a NUL or bytes that are not UTF-8;
    4. DatasetWithCarriageReturns (before 5, or lines that end in CR alone would count as none);
    5. DatasetEmpty: no line after the header;
    6. DatasetWithoutFinalNewline;
    7. the first line: DatasetWithQuotedNewlines, else DatasetWithoutHeader if it is blank or
       longer than LONGEST_LINE, else DatasetOneColumn, else DatasetWithoutHeader (a name is
       empty, repeated or a number);
    8. the first other line that is wrong: DatasetWithQuotedNewlines, else DatasetRagged (another
       number of fields than the header, blank, or longer than LONGEST_LINE).
    """
    scan = _Scan(path)
    with _open_regular_file(path) as file, _allowing_long_fields():
        _refuse_byte_order_mark(path, file.peek(3))
        while block := file.read(BLOCK):
            scan.add_block(block)
    return scan.finish()


@contextmanager
def _open_regular_file(path: Path) -> Iterator[io.BufferedReader]:
    """Yield the file opened for reading. Raises DatasetMissing for any OSError."""
    try:
        _refuse_non_file(path, path.stat().st_mode)
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        fix = "give --dataset the path of a CSV file, or leave it out for the lab's own; "
        fix += f"`ls -l {_quote(path.parent)}` shows what is there"
        raise DatasetMissing(f"{path}: there is no such file", fix) from error
    except OSError as error:
        fix = f"make it readable: `chmod u+r {_quote(path)}`, or copy it where you can read it"
        raise DatasetMissing(f"{path}: can't be read ({error.strerror})", fix) from error


@contextmanager
def _allowing_long_fields() -> Iterator[None]:
    """Raise the csv module's field limit of 128 KiB to the longest line that we accept."""
    limit = csv.field_size_limit(LONGEST_LINE + BLOCK)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


class _Scan:
    """The state of a check that gets the file block by block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = 0
        self._newlines = 0
        self._line_with_return: int | None = None
        self._columns: tuple[str, ...] = ()
        self._unended = b""
        self._ended = True
        self._fault: DatasetError | None = None

    def add_block(self, block: bytes) -> None:
        """Check the next block. Raises DatasetNotUtf8 at once, keeps other faults for later."""
        self._check_encoding(block)
        self._note_carriage_return(block)
        if self._fault is None and self._line_with_return is None:
            self._check_lines(self._unended + block)
        self._md5.update(block)
        self._size += len(block)
        self._newlines += block.count(b"\n")
        self._ended = block.endswith(b"\n")

    def finish(self) -> Shape:
        """Return the shape of the whole file. Raises the first fault in the order of `inspect`."""
        if not self._size:
            raise _empty_error(self._path, "there is no byte in it")
        self._check_encoding(b"", final=True)
        if self._line_with_return is not None:
            raise _carriage_return_error(self._path, self._line_with_return, self._newlines > 0)
        if self._newlines + (not self._ended) == 1:
            raise _empty_error(self._path, "line 1 is its only line, so there is no record")
        if not self._ended:
            raise _no_final_newline_error(self._path, self._newlines + 1)
        if self._fault is not None:
            raise self._fault
        return Shape(self._columns, self._newlines - 1, self._size, self._md5.hexdigest())

    def _check_encoding(self, block: bytes, final: bool = False) -> None:
        # A character may have begun in the previous block; the decoder holds its first bytes.
        held = len(self._decoder.getstate()[0])
        nul = block.find(b"\0")
        try:
            if held or final or not block.isascii():
                self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            at = error.start - held
            if nul < 0 or at < nul:
                line, offset = self._locate(block, at)
                byte = error.object[error.start]
                raise _not_utf8_error(self._path, byte, line, offset) from error
        if nul >= 0:
            raise _nul_byte_error(self._path, *self._locate(block, nul))

    def _locate(self, block: bytes, at: int) -> tuple[int, int]:
        """Return the line (from 1) and the byte offset in the file (from 0) of `block[at]`."""
        return self._newlines + block[: max(at, 0)].count(b"\n") + 1, self._size + at

    def _note_carriage_return(self, block: bytes) -> None:
        if self._line_with_return is None and (at := block.find(b"\r")) >= 0:
            self._line_with_return = self._locate(block, at)[0]

    def _check_lines(self, data: bytes) -> None:
        """Check every whole line of `data` and keep the rest for the next block."""
        end = data.rfind(b"\n") + 1
        self._unended = data[end:]
        try:
            self._refuse_long_line(data)
            if end:
                self._check_fields(data[:end])
        except DatasetError as fault:
            self._fault = fault
            self._unended = b""

    def _refuse_long_line(self, data: bytes) -> None:
        # Only the first line of `data` can be longer than a block: the others began within it.
        if max(data.find(b"\n"), len(self._unended)) > LONGEST_LINE:
            raise _long_line_error(self._path, self._newlines + 1)

    def _check_fields(self, lines: bytes) -> None:
        if not self._columns:
            self._columns = _parse_header(self._path, lines[: lines.index(b"\n") + 1])
        if not _is_surely_regular(lines, len(self._columns)):
            self._check_each_line(lines)

    def _check_each_line(self, lines: bytes) -> None:
        expected = len(self._columns)
        for number, line in enumerate(io.BytesIO(lines), self._newlines + 1):
            fields = line.count(b",") + 1
            if b'"' in line:
                fields = len(_parse_line(self._path, number, line))
            if fields != expected:
                raise _ragged_error(self._path, number, line, fields, expected)


def _is_surely_regular(lines: bytes, expected: int) -> bool:
    """Return whether each line certainly has `expected` fields; fast, as no Python runs per line.

    False may also mean that a comma is inside quotes: then the csv module must decide.
    """
    separators = lines.translate(None, _ALL_BUT_SEPARATORS)
    if b'"' in separators:
        # If no comma is between a quote and the next quote, no comma of the line is quoted.
        separators = separators.replace(b'""', b"")
    return separators == (b"," * (expected - 1) + b"\n") * (len(separators) // expected)


def _parse_line(path: Path, number: int, line: bytes) -> list[str]:
    # A reader that asks for the next line is still inside a quoted field.
    reader = csv.reader([line.decode(), ""])
    fields = next(reader)
    if reader.line_num > 1:
        raise _quoted_newline_error(path, number)
    return fields


def _parse_header(path: Path, line: bytes) -> tuple[str, ...]:
    names = _parse_line(path, 1, line)
    if not "".join(names).strip():
        raise _no_header_error(path, "line 1 is blank or names no column")
    if len(names) == 1:
        raise _one_column_error(path, names[0])
    known: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise _no_header_error(path, f"column {place} has no name in line 1")
        if _NUMBER.fullmatch(name.strip()):
            raise _no_header_error(path, f"line 1 names column {place} {name!r}, which is a number")
        if name in known:
            raise _no_header_error(path, f"line 1 names two columns {name!r}")
        known.add(name)
    return tuple(names)


# --- Errors and their fixes ---------------------------------------------------------------------

_REWRITE = "import csv, sys; csv.writer(sys.stdout, lineterminator='\\n').writerows({rows})"


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _pipe_fix(path: Path, command: str) -> str:
    """Return the fix that pipes the file through a command into a new file beside it."""
    fixed = path.with_name(f"{path.stem}.fixed.csv")
    return f"`{command} < {_quote(path)} > {_quote(fixed)}`, then --dataset {_quote(fixed)}"


def _refuse_non_file(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        fix = f"name one file in it: `ls {_quote(path)}` shows them"
        raise DatasetMissing(f"{path}: is a directory", fix)
    if not stat.S_ISREG(mode):
        raise DatasetMissing(f"{path}: is not a regular file", _pipe_fix(path, "cat"))


def _refuse_byte_order_mark(path: Path, head: bytes) -> None:
    if head.startswith(codecs.BOM_UTF8):
        what = f"{path}: begins with a byte order mark (EF BB BF at byte offset 0, line 1)"
        raise DatasetNotUtf8(what, "cut it off: " + _pipe_fix(path, "tail -c +4"))
    if head.startswith(_BYTE_ORDER_MARKS_OF_UTF16):
        what = f"{path}: is UTF-16, not UTF-8 (byte order mark at byte offset 0, line 1)"
        raise DatasetNotUtf8(what, "convert it: " + _pipe_fix(path, "iconv -f UTF-16 -t UTF-8"))


def _not_utf8_error(path: Path, byte: int, line: int, offset: int) -> DatasetNotUtf8:
    what = f"{path}: byte 0x{byte:02X} at byte offset {offset}, line {line}, is not UTF-8"
    convert = _pipe_fix(path, "iconv -f WINDOWS-1252 -t UTF-8")
    return DatasetNotUtf8(what, f"convert it (name the encoding that it really has): {convert}")


def _nul_byte_error(path: Path, line: int, offset: int) -> DatasetNotUtf8:
    what = f"{path}: a NUL byte at byte offset {offset}, line {line}"
    fix = "take NUL bytes out, or convert the file if it is UTF-16: "
    return DatasetNotUtf8(what, fix + _pipe_fix(path, r"tr -d '\000'"))


def _carriage_return_error(path: Path, line: int, has_newlines: bool) -> DatasetWithCarriageReturns:
    command = r"tr -d '\r'" if has_newlines else r"tr '\r' '\n'"
    what = f"{path}: a carriage return in line {line}; lines must end in LF alone"
    return DatasetWithCarriageReturns(what, _pipe_fix(path, command))


def _empty_error(path: Path, why: str) -> DatasetEmpty:
    fix = "give a file with a line of column names and at least one record: append one, "
    return DatasetEmpty(f"{path}: {why}", f"{fix}or export it again into {_quote(path)}")


def _no_final_newline_error(path: Path, line: int) -> DatasetWithoutFinalNewline:
    what = f"{path}: the last line, {line}, does not end in a newline"
    return DatasetWithoutFinalNewline(what, f"end it: `echo >> {_quote(path)}`")


def _no_header_error(path: Path, why: str) -> DatasetWithoutHeader:
    fix = f"edit {_quote(path)} so that line 1 gives every column a name of its own that is not "
    fix += "a number; if line 1 is a record, put a line of names above it"
    return DatasetWithoutHeader(f"{path}: {why}", fix)


def _one_column_error(path: Path, header: str) -> DatasetOneColumn:
    what = f"{path}: line 1 names one column only, {header[:60]!r}"
    for separator in (";", r"\t", "|"):
        if separator.replace(r"\t", "\t") in header:
            rows = _REWRITE.format(rows=f"csv.reader(sys.stdin, delimiter='{separator}')")
            return DatasetOneColumn(what, "use commas: " + _pipe_fix(path, f'python3 -c "{rows}"'))
    number = """awk '{print (NR == 1 ? "record" : NR - 1) "," $0}'"""
    return DatasetOneColumn(what, "number the records: " + _pipe_fix(path, number))


def _quoted_newline_error(path: Path, line: int) -> DatasetWithQuotedNewlines:
    what = f"{path}: a quoted field of line {line} does not end on its line"
    rows = r"[f.replace('\n', ' ') for f in r] for r in csv.reader(sys.stdin)"
    join = _pipe_fix(path, f'python3 -c "{_REWRITE.format(rows=rows)}"')
    return DatasetWithQuotedNewlines(what, f"close the quote in line {line}, or join lines: {join}")


def _ragged_error(
    path: Path, number: int, line: bytes, fields: int, expected: int
) -> DatasetRagged:
    if line == b"\n":
        what = f"{path}: line {number} is blank; {expected} fields are expected"
        return DatasetRagged(what, "drop blank lines: " + _pipe_fix(path, "grep -v '^$'"))
    what = f"{path}: line {number} has {fields} field(s), expected are {expected} as in line 1"
    fix = f"see it by `sed -n {number}p {_quote(path)}` and edit it: add what is missing, or put "
    return DatasetRagged(what, fix + "double quotes around a value that has a comma")


def _long_line_error(path: Path, number: int) -> DatasetError:
    kind = DatasetWithoutHeader if number == 1 else DatasetRagged
    what = f"{path}: line {number} is longer than {LONGEST_LINE >> 20} MiB"
    fix = f"see its beginning by `sed -n {number}p {_quote(path)} | head -c 500` and break it up"
    return kind(what, fix)
