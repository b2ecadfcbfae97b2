"""The record that a run appends: valid, drawn from the file, the same on each attempt."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataset_steps import record
from dataset_steps.errors import StepError
from dataset_steps.record import draw_record

SEEDS = [f"run-{number}" for number in range(200)]

ODD = [
    ["Employee ID", "Name", "Note", "Größe"],
    ["7", "Doe, Jane", 'said "no"', "1,85 m"],
    ["3", "Müller", "", "1,70 m"],
    ["12", "王小明", " blanks ", ""],
    ["5", "O\u2019Neil", '""', "tall\u2028short"],
]


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def draw_row(path: Path, seed: str = "run") -> list[str]:
    """Draw a record and return its fields, as any reader of CSV parses them."""
    line = draw_record(path, path.stat().st_size, seed)
    (row,) = csv.reader([line.decode()], strict=True)
    return row


def write_column(path: Path, cells: Sequence[str], name: str = "id") -> Path:
    return write_csv(path, [[name, "other"], *([cell, f"x{cell}"] for cell in cells)])


# --- What is drawn


@pytest.mark.parametrize("seed", SEEDS[:50])
def test_each_value_is_one_that_its_column_holds(file: Path, seed: str) -> None:
    row = draw_row(write_csv(file, ODD), seed)
    assert row[0] == "13"
    columns = list(zip(*ODD[1:], strict=True))
    assert all(value in column for value, column in zip(row[1:], columns[1:], strict=True))


def test_one_whole_line_is_drawn(file: Path) -> None:
    write_csv(file, ODD)
    for seed in SEEDS:
        line = draw_record(file, file.stat().st_size, seed)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1


def test_every_record_can_be_drawn_from(file: Path) -> None:
    write_csv(file, [["a", "b"], *([f"a{n}", f"b{n}"] for n in range(10))])
    rows = [draw_row(file, seed) for seed in SEEDS]
    assert {a for a, _ in rows} == {f"a{n}" for n in range(10)}
    assert {b for _, b in rows} == {f"b{n}" for n in range(10)}
    assert any(a[1:] != b[1:] for a, b in rows), "the columns are drawn one by one"


def test_different_runs_draw_different_records(file: Path) -> None:
    write_csv(file, [["a", "b"], *([f"a{n}", f"b{n}"] for n in range(1000))])
    lines = {draw_record(file, file.stat().st_size, seed) for seed in SEEDS}
    assert len(lines) > 0.95 * len(SEEDS)


def test_what_follows_the_size_is_not_read(file: Path) -> None:
    write_csv(file, ODD)
    size = file.stat().st_size
    before = [draw_record(file, size, seed) for seed in SEEDS]
    with file.open("a", encoding="utf-8") as whole:
        whole.write('99,never,never,never\n100,"half a li')
    assert [draw_record(file, size, seed) for seed in SEEDS] == before


def test_a_file_of_one_record(file: Path) -> None:
    assert draw_row(write_csv(file, [["name", "id"], ["Ann", "0"]])) == ["Ann", "1"]


def test_random_files_and_runs(file: Path) -> None:
    """Whatever the cells hold, the record can be appended and read again."""
    chance = random.Random(2024)
    for _ in range(100):
        alphabet = "ab ,\"é王\u2028\x85\t;'="
        cell = ["".join(chance.choices(alphabet, k=chance.randrange(6))) for _ in range(40)]
        width = chance.randrange(2, 6)
        rows = [chance.choices(cell, k=width) for _ in range(chance.randrange(2, 9))]
        row = draw_row(write_csv(file, rows), f"{rows}")
        assert len(row) == width
        assert all(value in {r[n] for r in rows[1:]} for n, value in enumerate(row))


# --- The key


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "ID",
        "Id",
        "Employee ID",
        "employee_id",
        "row-id",
        "userId",
        "userID",
        " id ",
        "index",
        "key",
        "Order No",
        "number",
        "Invoice Number",
        "größe_id",
    ],
)
def test_a_column_called_like_a_key_counts_on(file: Path, name: str) -> None:
    assert draw_row(write_column(file, ["4", "11", "9"], name))[0] == "12"


@pytest.mark.parametrize("name", ["Age", "Paid", "grid", "idle", "Video", "Notes", "ids", ""])
def test_other_columns_do_not(file: Path, name: str) -> None:
    assert {draw_row(write_column(file, ["4", "11"], name), seed)[0] for seed in SEEDS} == {
        "4",
        "11",
    }


@pytest.mark.parametrize(
    ("cells", "following"),
    [
        (["-5", "-3", "-9"], "-2"),
        (["-1"], "0"),
        (["0", "-7"], "1"),
        (["9"], "10"),
        (["999999999999999999"], "1000000000000000000"),
        (["-999999999999999999", "7"], "8"),
        ([" 41 ", "5"], "42"),
    ],
)
def test_the_highest_key_counts(file: Path, cells: list[str], following: str) -> None:
    assert {draw_row(write_column(file, cells), seed)[0] for seed in SEEDS[:20]} == {following}


@pytest.mark.parametrize(
    "odd", ["A7", "", "7.5", "1e3", "٣", "1_000", "1,000", "1;2", '"7"', "0x1f", "9" * 19]
)
def test_a_column_with_one_value_that_is_no_integer_is_not_counted(file: Path, odd: str) -> None:
    write_column(file, ["4", odd, "11"])
    assert {draw_row(file, seed)[0] for seed in SEEDS} == {"4", odd, "11"}


def test_a_key_among_quoted_cells(file: Path) -> None:
    rows = ["a, id", 'name,"id"', '"x, y",3', 'plain,"12"', 'z,"7"']
    file.write_text("\n".join(rows[1:]) + "\n", encoding="utf-8")
    assert draw_row(file)[1] == "13"


@pytest.mark.parametrize("quoted", [False, True])
def test_the_key_is_found_in_whatever_blocks_the_file_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch, quoted: bool
) -> None:
    chance = random.Random(7)
    for block in (1, 2, 3, 7, 64):
        monkeypatch.setattr(record, "BLOCK", block)
        keys = [str(chance.randrange(-50, 1000)) for _ in range(30)]
        name = 'x"y, z' if quoted else "x"
        write_csv(file, [["name", "id", "more"], *([name * int(k[-1]), k, "m"] for k in keys)])
        assert draw_row(file)[1] == str(max(map(int, keys)) + 1)


@pytest.mark.parametrize("odd", ["", "x", "1,5"])
def test_one_value_that_is_no_integer_is_found_in_any_block(
    file: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setattr(record, "BLOCK", 16)
    for place in range(12):
        cells = [str(n) for n in range(12)]
        cells[place] = odd
        write_column(file, cells)
        assert {draw_row(file, seed)[0] for seed in SEEDS[:40]} <= set(cells)


def test_the_first_of_two_keys_counts(file: Path) -> None:
    write_csv(file, [["name", "user id", "order id"], ["a", "5", "90"], ["b", "6", "80"]])
    _, user, order = draw_row(file)
    assert user == "7"
    assert order in {"90", "80"}


# --- Determinism


def test_the_same_in_every_process(file: Path) -> None:
    write_csv(file, ODD)
    code = "import sys; from pathlib import Path; from dataset_steps.record import draw_record\n"
    code += "path = Path(sys.argv[1]); line = draw_record(path, path.stat().st_size, 'r')\n"
    code += "sys.stdout.buffer.write(line)"
    lines = {
        subprocess.run(
            [sys.executable, "-c", code, file],
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert lines == {draw_record(file, file.stat().st_size, "r")}


def test_the_same_bytes_on_every_python(file: Path) -> None:
    """A retry may run in another image and must draw the same record there."""
    write_csv(file, [["id", "a", "b"], *([str(n), f"a{n}", f"b{n}"] for n in range(100))])
    assert draw_record(file, file.stat().st_size, "run/0123456789abcdef") == b"100,a91,b44\n"


# --- What is refused


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no record"),
        (b"id,name", "no record"),
        (b"id,name\n", "no record"),
        (b"id,name\r\n1,a\r\n", "CRLF"),
        (b"id,name\n1,a", "no newline"),
        (b"id,name\n1,a,x\n2,b,y\n", "3 fields, the header 2"),
        (b"id,name\n1\n2\n", "1 fields, the header 2"),
        (b"id,name\n\n\n", "0 fields, the header 2"),
        (b"id,name\n1,M\xfcller\n2,M\xfcller\n", "not UTF-8"),
        (b"\n1,a\n", "first line is empty"),
        (b"id,name\n1,a\rb\n", "not CSV"),
        (b"id,name\n1," + b"x" * 200_000 + b"\n", "not CSV"),
    ],
)
def test_files_to_which_nothing_can_be_appended(file: Path, content: bytes, why: str) -> None:
    file.write_bytes(content)
    with pytest.raises(StepError, match=why) as refusal:
        draw_record(file, len(content), "run")
    assert refusal.value.exit_code == 65


@pytest.mark.parametrize(
    "line", [b'"x",M\xfcller\n', b'"x",a\rb\n', b'"x",' + b"y" * 200_000 + b"\n"]
)
def test_a_line_that_is_no_csv_is_refused_wherever_it_is(file: Path, line: bytes) -> None:
    """The whole key column is read, whichever record is drawn from."""
    file.write_bytes(b"id,mark,name\n" + b"1,x,a\n" * 9 + b"1," + line)
    size = file.stat().st_size
    for seed in SEEDS[:50]:
        with pytest.raises(StepError, match=r"not UTF-8|not CSV"):
            draw_record(file, size, seed)


def test_a_ragged_record_is_refused_as_soon_as_it_is_drawn(file: Path) -> None:
    file.write_bytes(b"a,b\n1,2\n1,2,3\n")
    with pytest.raises(StepError, match="the record at byte 8 has 3 fields, the header 2"):
        [draw_record(file, 14, seed) for seed in SEEDS]
