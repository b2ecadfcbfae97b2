"""The one reader of CSV: what it takes, what it refuses, wherever its blocks end."""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from dataset_steps import files, table
from dataset_steps.inspect import describe
from dataset_steps.record import split_fields
from dataset_steps.table import NoColumn, NoHeader, NoRecord, NotText, Ragged, Table, TableError

GOOD: dict[str, tuple[bytes, list[list[str]]]] = {
    "plain": (b"a,b\n1,2\n3,4\n", [["1", "2"], ["3", "4"]]),
    "no final newline": (b"a,b\n1,2", [["1", "2"]]),
    "crlf": (b"a,b\r\n1,2\r\n", [["1", "2"]]),
    "cr": (b"a,b\r1,2\r3,4", [["1", "2"], ["3", "4"]]),
    "mixed line ends": (b"a,b\r\n1,2\n3,4\r5,6", [["1", "2"], ["3", "4"], ["5", "6"]]),
    "quoted newlines": (b'a,b\n"x\r\ny",2\n3,"\n"\n', [["x\r\ny", "2"], ["3", "\n"]]),
    "a quoted newline in the header": (b'"a\nb",c\n1,2\n', [["1", "2"]]),
    "quoted commas": (b'a,b\n"1,5",2\n3,"x,y,z"\n', [["1,5", "2"], ["3", "x,y,z"]]),
    "doubled quotes": (b'a,b\n"say ""hi, you""",2\n', [['say "hi, you"', "2"]]),
    "text after a quoted part": (b'a,b\n"1,"5,2\n', [["1,5", "2"]]),
    "a quote in a field": (b'a,b\n5" pipe,2\n"6"" x",3\n', [['5" pipe', "2"], ['6" x', "3"]]),
    "empty fields": (b"a,b\n,\n", [["", ""]]),
    "byte order mark": (b"\xef\xbb\xbfid,name\n1,a\n", [["1", "a"]]),
    "blank lines": (b"\n\na,b\n\n1,2\n   \n\n3,4\n\n", [["1", "2"], ["3", "4"]]),
    "one column": (b'a\n1\n\n""\n2\n', [["1"], [""], ["2"]]),
    "semicolons": (b"a;b\n1;2,5\n", [["1", "2,5"]]),
    "tabs": (b"a\tb\n1\t2\n", [["1", "2"]]),
    "pipes": (b"a|b\n1|2\n", [["1", "2"]]),
    "years": (b"Country,2019,2020\nA,1,2\n", [["A", "1", "2"]]),
    "an unnamed index": (b",a\n0,x\n", [["0", "x"]]),
    "an index before numbers": (b",0,1\n0,5,6\n", [["0", "5", "6"]]),
    "names without a name among them": (b"a,,c\n1,2,3\n", [["1", "2", "3"]]),
    "a name twice": (b"a,b,a\n1,2,3\n", [["1", "2", "3"]]),
    "many kinds of characters": ("ä,\u2019\n\u20ac,\U0001f600\n".encode(), [["€", "\U0001f600"]]),
    "what other systems end lines with": (
        "a,b\n1\u2028\x0b\x0c,\x85\n".encode(),
        [["1\u2028\x0b\x0c", "\x85"]],
    ),
    "no record": (b"a,b\n", []),
}

BAD: dict[str, tuple[bytes, type[TableError], str]] = {
    "no byte": (b"", NoRecord, "is empty"),
    "blank": (b"\n \n", NoRecord, "is empty"),
    "numbers first": (b"1,2\n3,4\n", NoHeader, "first line is '1,2'"),
    "numbers that repeat first": (b",0,0\n,1,2\n", NoHeader, "first line is ',0,0'"),
    "names of blanks": (b" , \n1,2\n", NoHeader, "first line"),
    "too few fields": (b"a,b,c\n1,2,3\n1,2\n", Ragged, "line 3 has 2 fields, the header 3"),
    "too many fields": (b"a,b\n1,2,3\n1\n", Ragged, "line 2 has 3 fields, the header 2"),
    "ragged after a quoted newline": (b'a,b\n"\n",2\n1\n', Ragged, "line 4 has 1 fields"),
    "ragged among semicolons": (b"a;b\n1;2\n3\n", Ragged, "line 3 has 1 fields, the header 2"),
    "ragged after blank lines": (b"\na,b\n\n1,2\n\n3\n", Ragged, "line 6 has 1 fields"),
    "a quote never closed": (b'a,b\n1,2\n1,"2\n3,4\n', Ragged, "the record of line 3 is never"),
    "latin 1": (b"a,b\n1,caf\xe9\n", NotText, "byte 0xE9 at offset 9, in line 2"),
    "a character cut off": (b"a,b\n1,\xe2\x80", NotText, "byte 0xE2 at offset 6, in line 2"),
    "a broken character": (b"a,b\n\xe2\x80\n,2\n", NotText, "byte 0xE2 at offset 4, in line 2"),
    "latin 1 in the header": (b"caf\xe9,b\n1,2\n", NotText, "byte 0xE9 at offset 3, in line 1"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), NotText, "is UTF-16"),
    "utf-32": ("a,b\n1,2\n".encode("utf-32"), NotText, "is UTF-32"),
    "nul": (b"a,b\n1,2\0\n", NotText, "NUL byte at offset 7, in line 2"),
}


def cut(content: bytes, size: int) -> Iterator[bytes]:
    """Yield the content in blocks of `size` bytes."""
    return (content[at : at + size] for at in range(0, len(content), size))


def open_table(content: bytes, size: int = 1 << 20) -> Table:
    return Table(cut(content, size), "x.csv")


@pytest.fixture(params=[1, 2, 3, 7, 1 << 20])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a size of blocks, all of which are looked at alone but for the header's."""
    monkeypatch.setattr(table, "SAMPLE", 1)
    return int(request.param)


# --- What is taken and what is refused ----------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_what_pandas_takes_is_taken(name: str, size: int) -> None:
    content, rows = GOOD[name]
    assert list(open_table(content, size if name not in SAMPLED else 1 << 20).rows()) == rows


# Dialect and encoding are looked for in what has arrived: some need more than a few bytes.
SAMPLED = {"semicolons", "tabs", "pipes", "ragged among semicolons", "utf-32"}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_right_is_refused(name: str, size: int) -> None:
    content, kind, message = BAD[name]
    with pytest.raises(TableError) as caught:
        list(open_table(content, size if name not in SAMPLED else 1 << 20).rows())
    assert type(caught.value) is kind
    assert caught.value.what.startswith("x.csv: ") and message in caught.value.what
    assert caught.value.exit_code == 65
    assert str(caught.value) == f"{caught.value.what}: {caught.value.fix}"


def parse(text: str) -> list[list[str]]:
    """Return the rows that the csv module reads."""
    with io.StringIO(text, newline="") as file:
        return list(csv.reader(file))


def test_random_texts_are_what_the_csv_module_makes_of_them(size: int) -> None:
    chance, opened = random.Random(15), 0
    for _ in range(400):
        text = "".join(chance.choices('ab,"\n\ré ', weights=[5, 5, 4, 3, 2, 1, 2, 1], k=40))
        read = open_table(f"x,y\n{text}".encode(), size)
        if parse(f"{text}\nE,E")[-1] != ["E", "E"]:
            opened += 1
            with pytest.raises(Ragged, match="never closed"):
                list(read.blocks())
            continue
        found = [row for block in read.blocks() for row in block.rows()]
        assert found == [row for row in parse(text) if not table.is_blank(row)], text
    assert opened > 50


def test_a_separator_is_taken_from_regular_records_only() -> None:
    assert open_table(b"a;b,c\n1;2,3\n4;5,6\n").separator == ","
    assert open_table(b'a;b\n"1,5";"2,5"\n1,5;2,5\n').separator == ";"
    assert open_table(b"comment\nhello; world\n").separator == ","


def test_a_late_ragged_record_is_refused_after_many_blocks() -> None:
    content = b"a,b\n" + b"1,2\n" * 300_000 + b"1,2,3\n"
    with pytest.raises(Ragged, match="line 300002 has 3 fields"):
        list(open_table(content).regular_blocks())


def test_columns_are_found_by_names_that_occur_once() -> None:
    read = open_table(b"id,amount,amount,city\n")
    assert read.find_columns(["city", "id"]) == [3, 0]
    with pytest.raises(NoColumn, match="no column sum: it has id, amount, amount, city"):
        read.find_columns(["id", "sum"])
    with pytest.raises(NoColumn, match="more than one column amount"):
        read.find_columns(["id", "amount"])


# --- Records where they are ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in GOOD if name not in SAMPLED])
def test_each_byte_of_the_body_is_of_one_record(name: str, size: int) -> None:
    content, rows = GOOD[name]
    read, found = open_table(content, size), list[tuple[int, int]]()
    for block in read.blocks():
        for offset in range(block.offset, block.offset + len(block.data)):
            start, end = block.find_record(offset)
            assert start <= offset < end or content[block.offset : offset + 1].isspace()
            if not found or found[-1][0] != start:
                found.append((start, end))
    raw = [split_fields(content[start:end].lstrip(b"\n "), b",") for start, end in found]
    parsed = [next(csv.reader(io.StringIO(b",".join(r).decode(), newline=""))) for r in raw]
    assert [row or [""] for row in parsed] == rows


# --- Limits -------------------------------------------------------------------------------------


def test_a_field_of_a_megabyte_is_a_field() -> None:
    field = "POLYGON ((" + "1 2, " * 200_000 + "1 2))"
    content = f'id,shape\n1,"{field}"\n'.encode()
    assert list(open_table(content).rows()) == [["1", field]]


@pytest.mark.parametrize("head", [b"a", b'a,b\n1,"x'])
def test_a_record_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(table, "LONGEST_RECORD", 4 << 20)
    with pytest.raises(Ragged, match=r"the record in line \d is longer than 4 MiB"):
        list(Table(chain([head], repeat(b"x" * (1 << 20), 40)), "x.csv").rows())


@pytest.mark.parametrize(
    "record", [b"1,2\n", b'"1","2"\n', b'"1\n1",2\n', b"1,2\n\n"], ids=["plain", "q", "n", "blank"]
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bytes
) -> None:
    path, count = tmp_path / "table.csv", 1_000_000 // len(record)
    path.write_bytes(b"a,b\n" + record * count)
    monkeypatch.setattr(files, "BLOCK", 1 << 13)
    monkeypatch.setattr(table, "SAMPLE", 1)
    tracemalloc.start()
    try:
        assert describe(path)["records"] == count
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_airflow_needs_nothing_else_to_import_it() -> None:
    """Airflow's image has this module, `errors` and the standard library."""
    code = "import sys; import dataset_steps.table\n"
    code += "print(*sorted(n for n in sys.modules if n.startswith('dataset_steps')))\n"
    code += "outside = {n.split('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)\n"
    code += "print(*sorted(n for n in outside if not n.startswith(('_', 'dataset_steps'))))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(WORKER)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n") == [
        "dataset_steps dataset_steps.errors dataset_steps.table",
        "",
        "",
    ]


WORKER = Path(__file__).resolve().parents[2] / "images" / "worker"
