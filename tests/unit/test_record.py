"""The record that a run appends: valid, drawn from the file, the same on each attempt."""

from __future__ import annotations

import csv
import io
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataset_steps import files, key, record, table
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


def draw(path: Path, seed: str = "run", key: str = "") -> bytes:
    """Draw a record and return what is to be appended."""
    return draw_record(path, path.stat().st_size, seed, key).content


def draw_row(path: Path, seed: str = "run", key: str = "") -> list[str]:
    """Draw a record and return its fields, as any reader of CSV parses them."""
    text = io.StringIO(draw(path, seed, key).decode(), newline="")
    (row,) = csv.reader(text, strict=True)
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
        line = draw(file, seed)
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
    lines = {draw(file, seed) for seed in SEEDS}
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


def test_a_field_is_written_as_the_file_has_it(file: Path) -> None:
    file.write_bytes(b'id,"a","b"\n1,"x",y\n2,"x",y\n')
    assert draw(file) == b'3,"x",y\n'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("is_ended", [True, False])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_record_is_in_the_dialect_of_the_file(
    file: Path, end: str, mark: str, is_ended: bool, separator: str
) -> None:
    lines = [f"id{separator}x", f"1{separator}a", f"2{separator}a"]
    file.write_bytes((mark + end.join(lines) + end * is_ended).encode())
    record = f"3{separator}a"
    assert draw(file).decode() == (record + end if is_ended else end + record)


def test_the_line_end_is_that_of_the_last_line(file: Path) -> None:
    file.write_bytes(b"id,x\r\n1,a\n2,a\n")
    assert draw(file) == b"3,a\n"


def test_random_files_and_runs(file: Path) -> None:
    """Whatever the cells hold, the record can be appended and read again."""
    chance = random.Random(2024)
    for _ in range(300):
        end = chance.choice(["\n", "\r\n"])
        # Python's writer quotes a carriage return only when it is a part of the line end.
        alphabet = "ab ,\"é王\u2028\x85\t;'=\n" + end[:-1]
        cell = ["".join(chance.choices(alphabet, k=chance.randrange(6))) for _ in range(40)]
        width = chance.randrange(1, 6)
        names = [f"c{n}" for n in range(width)]
        rows = [names, *(chance.choices(cell, k=width) for _ in range(chance.randrange(1, 9)))]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=end).writerows(rows)
        content = text.getvalue().encode()[: -len(end) if chance.random() < 0.3 else None]
        file.write_bytes(content)
        rows = read_rows(content)
        if len(rows) < 2:
            continue
        *earlier, row = read_rows(content + draw(file, f"{rows}"))
        assert earlier == rows, content
        assert len(row) == width
        assert all(value in {r[n] for r in rows[1:]} for n, value in enumerate(row))


def read_rows(content: bytes) -> list[list[str]]:
    """Return the rows that the csv module reads, without blank lines."""
    rows = csv.reader(io.StringIO(content.decode(), newline=""))
    return [row for row in rows if row and not (len(row) == 1 and row[0] and row[0].isspace())]


def test_wide_tables_take_no_more_time_than_their_bytes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that many columns are drawn from is split once."""
    names = ",".join(f"c{n}" for n in range(2000))
    file.write_text("\n".join([names, *(",".join("x" * 2000) for _ in range(3))]) + "\n")
    calls: list[bytes] = []
    split = record.split_fields

    def count(line: bytes, separator: bytes) -> list[bytes]:
        calls.append(line)
        return split(line, separator)

    monkeypatch.setattr(record, "split_fields", count)
    draw(file)
    assert len(calls) == 3


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
        "rowid",
        "userId",
        "userID",
        " id ",
        "index",
        "key",
        "pk",
        "größe_id",
    ],
)
def test_a_column_called_like_a_key_counts_on(file: Path, name: str) -> None:
    assert draw_row(write_column(file, ["4", "11", "9"], name))[0] == "12"


@pytest.mark.parametrize(
    "name",
    ["Age", "Paid", "grid", "idle", "Video", "Notes", "ids", "house_number", "number", "Order No"],
)
def test_other_columns_do_not(file: Path, name: str) -> None:
    write_column(file, ["4", "11"], name)
    assert {draw_row(file, seed)[0] for seed in SEEDS[:20]} == {"4", "11"}


@pytest.mark.parametrize(
    ("cells", "following"),
    [
        (["9"], "10"),
        (["000123", "000124"], "000125"),
        (["0999"], "1000"),
        (["009", "010", "8"], "011"),
        (["E-0099", "E-0100"], "E-0101"),
        (["2024-07", "2024-08"], "2024-09"),
        (["999999999999999999"], "1000000000000000000"),
        ([" 41", " 5"], " 42"),
    ],
)
def test_the_highest_key_counts(file: Path, cells: list[str], following: str) -> None:
    assert {draw_row(write_column(file, cells), seed)[0] for seed in SEEDS[:20]} == {following}


@pytest.mark.parametrize(
    "odd",
    ["A7", "", "7.5", "1e3", "٣", "1_000", "1,000", "1;2", "-7", "0x1f", "9" * 19, "5\n6"],
)
def test_a_column_with_one_value_that_is_no_key_is_not_counted(file: Path, odd: str) -> None:
    write_column(file, ["4", odd, "11"])
    assert {draw_row(file, seed)[0] for seed in SEEDS[:40]} == {"4", odd, "11"}


def test_a_key_among_quoted_cells(file: Path) -> None:
    rows = ['name,"id"', '"x, y","003"', 'plain,"0012"', 'z,"7"']
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert draw(file).endswith(b',"0013"\n')


@pytest.mark.parametrize("quoted", [False, True])
def test_the_key_is_found_in_whatever_blocks_the_file_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch, quoted: bool
) -> None:
    chance = random.Random(7)
    monkeypatch.setattr(table, "SAMPLE", 1)
    for block in (1, 2, 3, 7, 64):
        monkeypatch.setattr(files, "BLOCK", block)
        keys = [str(number) for number in chance.sample(range(1000), 30)]
        name = 'x"y, z' if quoted else "x"
        write_csv(file, [["name", "id", "more"], *([name * int(k[-1]), k, "m"] for k in keys)])
        assert draw_row(file)[1] == str(max(map(int, keys)) + 1)


def test_a_key_that_repeats_is_of_another_table(file: Path) -> None:
    write_csv(file, [["customer_id", "x"], ["5", "a"], ["6", "b"], ["5", "c"]])
    drawn = draw_record(file, file.stat().st_size, "run")
    assert drawn.content[:1] in b"56"
    assert drawn.keys.startswith("counted on no column: 'customer_id' repeats a value")


def test_of_two_columns_called_like_a_key_none_is_guessed(file: Path) -> None:
    write_csv(file, [["customer_id", "order_id"], ["5", "90"], ["6", "80"]])
    drawn = draw_record(file, file.stat().st_size, "run")
    assert "counted on no column: 2 columns are named like a key (customer_id, order_id)" in (
        drawn.keys
    )
    assert "--conf" in drawn.keys
    assert {tuple(draw_row(file, seed)) for seed in SEEDS[:40]} == {
        (customer, order) for customer in "56" for order in ("90", "80")
    }


def test_the_key_that_is_told_counts(file: Path) -> None:
    write_csv(file, [["customer_id", "order_id"], ["5", "90"], ["6", "80"]])
    assert draw_row(file, key="order_id")[1] == "91"
    said = draw_record(file, file.stat().st_size, "run", "order_id").keys
    assert said == "counted on the column 'order_id', as the param `key` says"


@pytest.mark.parametrize(
    ("key", "why"),
    [("nope", "no column nope: it has id, name"), ("name", "it holds 'Ann'")],
)
def test_a_key_that_can_not_be_counted_on_is_refused(file: Path, key: str, why: str) -> None:
    write_csv(file, [["id", "name"], ["1", "Ann"]])
    with pytest.raises(StepError, match=why) as refusal:
        draw(file, key=key)
    assert refusal.value.exit_code == 65


@pytest.mark.parametrize("header", [",a", "Unnamed: 0,a"])
def test_the_index_of_pandas_counts_on(file: Path, header: str) -> None:
    file.write_text(f"{header}\n0,x\n1,x\n")
    assert draw(file) == b"2,x\n"


def test_the_index_of_pandas_counts_on_beside_a_key(file: Path) -> None:
    file.write_text(",id,a\n0,007,x\n1,008,x\n")
    assert draw(file) == b"2,009,x\n"
    assert "'id'" in draw_record(file, file.stat().st_size, "run").keys


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("order", [1, -1, 0])
def test_many_keys_are_compared_in_files(
    file: Path, monkeypatch: pytest.MonkeyPatch, order: int, repeated: bool
) -> None:
    monkeypatch.setattr(key, "MOST_IN_MEMORY", 100)
    numbers = list(range(1000))[:: order or 1]
    if not order:
        random.Random(3).shuffle(numbers)
    if repeated:
        numbers[700] = numbers[3]
    file.write_text("id,x\n" + "".join(f"{number},a\n" for number in numbers))
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(table, "SAMPLE", 1)
    assert (draw(file) == b"1000,a\n") is not repeated
    assert [path.name for path in file.parent.iterdir()] == [file.name]


# --- Determinism


def test_the_same_in_every_process(file: Path) -> None:
    write_csv(file, ODD)
    code = "import sys; from pathlib import Path; from dataset_steps.record import draw_record\n"
    code += "path = Path(sys.argv[1]); line = draw_record(path, path.stat().st_size, 'r').content\n"
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
    assert lines == {draw(file, "r")}


def test_the_same_bytes_on_every_python(file: Path) -> None:
    """A retry may run in another image and must draw the same record there."""
    write_csv(file, [["id", "a", "b"], *([str(n), f"a{n}", f"b{n}"] for n in range(100))])
    assert draw(file, "run/0123456789abcdef") == b"100,a90,b43\n"


# --- What is refused


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"id,name", "no record"),
        (b"id,name\n\n\n", "no record"),
        (b"id,name\n1\n2\n", "line 2 has 1 fields, the header 2"),
        (b"id,name\n1,M\xfcller\n2,M\xfcller\n", "not UTF-8"),
        (b"1,2\n3,4\n", "no header"),
    ],
)
def test_files_to_which_nothing_can_be_appended(file: Path, content: bytes, why: str) -> None:
    file.write_bytes(content)
    with pytest.raises(StepError, match=why) as refusal:
        draw(file)
    assert refusal.value.exit_code == 65


@pytest.mark.parametrize("line", [b'"x",M\xfcller\n', b"x\n", b"x,y,z\n", b'"x,y\n'])
def test_a_bad_record_is_refused_by_every_run(file: Path, line: bytes) -> None:
    """The whole file is read, whichever records are drawn from."""
    file.write_bytes(b"mark,name\n" + b"x,a\n" * 9 + line + b"x,a\n" * 9)
    for seed in SEEDS[:50]:
        with pytest.raises(StepError, match=r"not UTF-8|the header 2|never closed"):
            draw(file, seed)
