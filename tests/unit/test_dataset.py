"""The default dataset has the same bytes everywhere; `inspect` reports what is wrong with a CSV."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from lab.dataset import inspection
from lab.dataset.employees import EMPLOYEES_MD5, EMPLOYEES_SIZE, write_employees
from lab.dataset.inspection import Shape, inspect
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

HEADER = (
    "Employee ID,Age,Gender,Years at Company,Job Role,Monthly Income,Work-Life Balance,"
    "Job Satisfaction,Performance Rating,Number of Promotions,Overtime,Distance from Home,"
    "Education Level,Marital Status,Number of Dependents,Job Level,Company Size,Company Tenure,"
    "Remote Work,Leadership Opportunities,Innovation Opportunities,Company Reputation,"
    "Employee Recognition,Attrition,dataset_type"
)
RATING = {"Poor", "Fair", "Good", "Excellent"}
DEGREES = {
    "High School",
    "Associate Degree",
    "Bachelor\u2019s Degree",
    "Master\u2019s Degree",
    "PhD",
}
WORDS = {
    "Gender": {"Male", "Female"},
    "Job Role": {"Education", "Media", "Healthcare", "Technology", "Finance"},
    "Work-Life Balance": RATING,
    "Job Satisfaction": {"Low", "Medium", "High", "Very High"},
    "Performance Rating": {"Low", "Below Average", "Average", "High"},
    "Overtime": {"Yes", "No"},
    "Education Level": DEGREES,
    "Marital Status": {"Single", "Married", "Divorced"},
    "Job Level": {"Entry", "Mid", "Senior"},
    "Company Size": {"Small", "Medium", "Large"},
    "Remote Work": {"Yes", "No"},
    "Leadership Opportunities": {"Yes", "No"},
    "Innovation Opportunities": {"Yes", "No"},
    "Company Reputation": RATING,
    "Employee Recognition": {"Low", "Medium", "High", "Very High"},
    "Attrition": {"Stayed", "Left"},
    "dataset_type": {"train", "test"},
}
RANGES = {
    "Age": (18, 59),
    "Years at Company": (1, 42),
    "Monthly Income": (1200, 16200),
    "Number of Promotions": (0, 4),
    "Distance from Home": (1, 99),
    "Number of Dependents": (0, 6),
    "Company Tenure": (2, 128),
}

Row = dict[str, str]


@pytest.fixture(scope="module")
def employees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("employees") / "employees.csv"
    write_employees(path)
    return path


@pytest.fixture(scope="module")
def rows(employees: Path) -> list[Row]:
    with employees.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return the path of a test's CSV; its name needs quotes in a shell."""
    return tmp_path / "my table.csv"


def compute_share_left(rows: Iterable[Row]) -> float:
    left = [row["Attrition"] == "Left" for row in rows]
    return sum(left) / len(left)


def compute_mean(rows: Iterable[Row], column: str) -> float:
    values = [int(row[column]) for row in rows]
    return sum(values) / len(values)


def group_by(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return groups


# --- The default dataset ------------------------------------------------------------------------


def test_the_default_dataset_is_the_bytes_that_the_constants_name(employees: Path) -> None:
    content = employees.read_bytes()
    assert hashlib.md5(content).hexdigest() == EMPLOYEES_MD5
    assert len(content) == EMPLOYEES_SIZE
    assert 9_900_000 <= EMPLOYEES_SIZE <= 10_050_000


def test_inspect_agrees_with_the_generator(employees: Path) -> None:
    shape = Shape(tuple(HEADER.split(",")), 74_500, EMPLOYEES_SIZE, EMPLOYEES_MD5)
    assert inspect(employees) == shape


def test_lines_end_in_lf_and_hold_the_original_s_apostrophe(employees: Path) -> None:
    content = employees.read_bytes()
    assert content.startswith(HEADER.encode() + b"\n") and content.endswith(b"\n")
    assert b"\r" not in content and b'"' not in content
    assert "Bachelor\u2019s Degree".encode() in content


def test_employee_ids_are_unique_and_shuffled(rows: list[Row]) -> None:
    identifiers = [int(row["Employee ID"]) for row in rows]
    assert sorted(identifiers) == list(range(1, 74_501))
    in_order = sum(a < b for a, b in pairwise(identifiers))
    assert 0.49 < in_order / len(identifiers) < 0.51


@pytest.mark.parametrize("column", WORDS)
def test_a_column_of_words_holds_exactly_the_original_s(rows: list[Row], column: str) -> None:
    assert {row[column] for row in rows} == WORDS[column]


@pytest.mark.parametrize("column", RANGES)
def test_a_column_of_numbers_stays_in_its_range(rows: list[Row], column: str) -> None:
    lowest, highest = RANGES[column]
    assert all(lowest <= int(row[column]) <= highest for row in rows)


def test_every_column_is_either_words_or_numbers_or_the_id() -> None:
    assert {*WORDS, *RANGES, "Employee ID"} == set(HEADER.split(","))


def test_nobody_is_older_in_the_company_than_in_life(rows: list[Row]) -> None:
    assert all(int(row["Years at Company"]) <= int(row["Age"]) - 17 for row in rows)
    assert all(int(row["Company Tenure"]) >= int(row["Years at Company"]) for row in rows)
    assert all(int(row["Age"]) >= 27 for row in rows if row["Education Level"] == "PhD")
    assert all(int(row["Age"]) >= 22 for row in rows if row["Job Level"] == "Senior")


def test_rank_comes_with_age_and_pay_with_rank_and_role(rows: list[Row]) -> None:
    levels, roles = group_by(rows, "Job Level"), group_by(rows, "Job Role")
    for column in ("Age", "Years at Company", "Monthly Income"):
        means = [compute_mean(levels[level], column) for level in ("Entry", "Mid", "Senior")]
        assert means == sorted(means)
    assert compute_mean(roles["Technology"], "Monthly Income") > 1.7 * compute_mean(
        roles["Education"], "Monthly Income"
    )


def test_about_47_percent_leave_and_80_percent_are_for_training(rows: list[Row]) -> None:
    assert compute_share_left(rows) == pytest.approx(0.47, abs=0.01)
    assert len(group_by(rows, "dataset_type")["train"]) / len(rows) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("column", "from_leaving_to_staying"),
    [
        ("Overtime", ["Yes", "No"]),
        ("Work-Life Balance", ["Poor", "Fair", "Good", "Excellent"]),
        ("Job Satisfaction", ["Low", "Medium", "High", "Very High"]),
        ("Remote Work", ["No", "Yes"]),
        ("Job Level", ["Entry", "Mid", "Senior"]),
        ("Marital Status", ["Single", "Married"]),
        ("Number of Promotions", ["0", "1", "2", "3", "4"]),
    ],
)
def test_who_leaves_depends_on(
    rows: list[Row], column: str, from_leaving_to_staying: list[str]
) -> None:
    groups = group_by(rows, column)
    shares = [compute_share_left(groups[value]) for value in from_leaving_to_staying]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[-1] > 0.05


def test_who_lives_far_away_leaves_more_often(rows: list[Row]) -> None:
    far = compute_share_left(row for row in rows if int(row["Distance from Home"]) > 75)
    near = compute_share_left(row for row in rows if int(row["Distance from Home"]) <= 25)
    assert far - near > 0.05


def test_hash_seed_and_locale_change_no_byte(table: Path) -> None:
    script = "import sys; from pathlib import Path; from lab.dataset import employees; "
    script += "employees.write_employees(Path(sys.argv[1]))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(inspection.__file__).parents[1]),
        "PYTHONHASHSEED": "4242",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LANG": "C",
        "LC_ALL": "C",
    }
    subprocess.run([sys.executable, "-c", script, str(table)], check=True, env=environment)
    assert hashlib.md5(table.read_bytes()).hexdigest() == EMPLOYEES_MD5


def test_a_failed_writer_leaves_what_was_there_and_nothing_else(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text("kept")

    def raise_disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(OSError, match="No space"):
        write_employees(table)
    assert table.read_text() == "kept" and list(table.parent.iterdir()) == [table]


def test_a_killed_writer_s_leftover_does_not_matter(table: Path) -> None:
    leftover = table.with_name(f".{table.name}.0123abcd.part")
    leftover.write_text("half a line")
    write_employees(table)
    assert inspect(table).md5 == EMPLOYEES_MD5
    assert sorted(table.parent.iterdir()) == [leftover, table]


# --- What inspect accepts -----------------------------------------------------------------------

GOOD = {
    "plain": (b"a,b\n1,2\n3,4\n", 2),
    "quoted commas": (b'a,b\n"1,5",2\n3,"x,y,z"\n', 2),
    "doubled quotes": (b'a,b\n"say ""hi, you""",2\n', 1),
    "text after a quoted part": (b'a,b\n"1,"5,2\n', 1),
    "a quote within a value": (b'a,b\n5" pipe,2\n', 1),
    "quoted header": (b'"a, first",b\n1,2\n', 1),
    "empty values": (b"a,b\n,\n", 1),
    "many kinds of characters": ("ä,\u2019\n\u20ac,\U0001f600\n".encode(), 1),
    "separators of other systems within a value": ("a,b\n1\u2028\x0b\x0c,\x85\n".encode(), 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_inspect_gives_the_shape_of(table: Path, name: str) -> None:
    content, records = GOOD[name]
    table.write_bytes(content)
    shape = inspect(table)
    assert (shape.records, len(shape.columns)) == (records, 2)
    assert (shape.size, shape.md5) == (len(content), hashlib.md5(content).hexdigest())


def test_names_are_those_of_the_header_without_its_quotes(table: Path) -> None:
    table.write_bytes(b'"a, first",b 2\n1,2\n')
    assert inspect(table).columns == ("a, first", "b 2")


def test_a_long_quoted_field_is_accepted_and_the_limit_of_csv_restored(table: Path) -> None:
    limit = csv.field_size_limit()
    table.write_bytes(b'a,b\n"' + b"x" * (limit + 1) + b'",2\n')
    assert inspect(table).records == 1
    assert csv.field_size_limit() == limit


# --- What inspect refuses -----------------------------------------------------------------------

BAD: dict[str, tuple[bytes, type[DatasetError], str]] = {
    "zero bytes": (b"", DatasetEmpty, "no byte"),
    "header only": (b"a,b\n", DatasetEmpty, "line 1 is its only line"),
    "unended header only": (b"a,b", DatasetEmpty, "line 1 is its only line"),
    "empty name": (b"a,,c\n1,2,3\n", DatasetWithoutHeader, "column 2 has no name"),
    "blank name": (b"a,b, \n1,2,3\n", DatasetWithoutHeader, "column 3 has no name"),
    "repeated name": (b"a,b,a\n1,2,3\n", DatasetWithoutHeader, "two columns 'a'"),
    "a number as name": (b"a,-1.5e3\n1,2\n", DatasetWithoutHeader, "'-1.5e3', which is a number"),
    "a record first": (b"1,2\n3,4\n", DatasetWithoutHeader, "names column 1 '1'"),
    "blank first line": (b"\na,b\n1,2\n", DatasetWithoutHeader, "line 1 is blank"),
    "no final newline": (b"a,b\n1,2\n3,4", DatasetWithoutFinalNewline, "last line, 3"),
    "crlf": (b"a,b\r\n1,2\r\n", DatasetWithCarriageReturns, "line 1;"),
    "cr only": (b"a,b\r1,2\r", DatasetWithCarriageReturns, "line 1;"),
    "a late cr": (b"a,b\n1,2\n3,\r4\n", DatasetWithCarriageReturns, "line 3;"),
    "quoted newline": (b'a,b\n1,2\n"x\ny",2\n', DatasetWithQuotedNewlines, "line 3 does not end"),
    "quoted newline in header": (b'"a\nb",c\n1,2\n', DatasetWithQuotedNewlines, "line 1 does"),
    "quote never closed": (b'a,b\n1,"2\n3,4\n', DatasetWithQuotedNewlines, "line 2 does not"),
    "too few fields": (
        b"a,b,c\n1,2,3\n1,2\n",
        DatasetRagged,
        "line 3 has 2 field(s), expected are 3",
    ),
    "too many fields": (b"a,b\n1,2,3\n1\n", DatasetRagged, "line 2 has 3 field(s), expected are 2"),
    "ragged with quotes": (
        b'a,b\n"1,2"\n3,4\n',
        DatasetRagged,
        "line 2 has 1 field(s), expected are 2",
    ),
    "ragged after a doubled quote": (b'a,b\n"1"",",2,3\n', DatasetRagged, "line 2 has 3 field(s)"),
    "blank line": (b"a,b\n1,2\n\n3,4\n", DatasetRagged, "line 3 is blank"),
    "blank line at the end": (b"a,b\n1,2\n\n", DatasetRagged, "line 3 is blank"),
    "latin 1": (b"a,b\n1,caf\xe9\n", DatasetNotUtf8, "byte 0xE9 at byte offset 9, line 2,"),
    "a character cut off": (b"a,b\n1,\xe2\x80", DatasetNotUtf8, "byte 0xE2 at byte offset 6,"),
    "a character broken": (b"a,b\n\xe2\x80\n,2\n", DatasetNotUtf8, "0xE2 at byte offset 4, line 2"),
    "utf-8 bom": (b"\xef\xbb\xbfa,b\n1,2\n", DatasetNotUtf8, "byte order mark"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), DatasetNotUtf8, "UTF-16"),
    "nul": (b"a,b\n1,2\0\n", DatasetNotUtf8, "NUL byte at byte offset 7, line 2"),
    "one column": (b"a\n1\n2\n", DatasetOneColumn, "one column only, 'a'"),
    "semicolons": (b"a;b\n1;2,5\n", DatasetOneColumn, "one column only, 'a;b'"),
    "tabs": (b"a\tb\n1\t2\n", DatasetOneColumn, "one column only"),
    "pipes": (b"a|b\n1|2\n", DatasetOneColumn, "one column only"),
}


@pytest.mark.parametrize("name", BAD)
def test_inspect_refuses(table: Path, name: str) -> None:
    content, kind, message = BAD[name]
    table.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        inspect(table)
    assert type(caught.value) is kind
    assert message in caught.value.what and str(table) in caught.value.what
    assert "edit" in caught.value.fix or "`" in caught.value.fix or "append" in caught.value.fix


@pytest.mark.skipif(shutil.which("iconv") is None, reason="some fixes are made by iconv")
@pytest.mark.parametrize(
    "name",
    [
        *("crlf", "cr only", "no final newline", "quoted newline", "quoted newline in header"),
        *("blank line", "blank line at the end", "latin 1", "utf-8 bom", "utf-16", "nul"),
        *("one column", "semicolons", "tabs", "pipes"),
    ],
)
def test_the_command_in_the_fix_makes_the_file_good(table: Path, name: str) -> None:
    table.write_bytes(BAD[name][0])
    with pytest.raises(DatasetError) as caught:
        inspect(table)
    (command,) = re.findall("`(.+)`", caught.value.fix)
    subprocess.run(["sh", "-c", command], check=True)
    fixed = table.with_name("my table.fixed.csv")
    assert inspect(fixed if fixed.exists() else table).records >= 1


def test_a_missing_file(table: Path) -> None:
    with pytest.raises(DatasetMissing, match="no such file") as caught:
        inspect(table)
    assert f"`ls -l {shlex.quote(str(table.parent))}`" in caught.value.fix


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="is a directory") as caught:
        inspect(tmp_path)
    assert f"`ls {shlex.quote(str(tmp_path))}`" in caught.value.fix


def test_a_pipe_is_refused_instead_of_waited_for(table: Path) -> None:
    os.mkfifo(table)
    with pytest.raises(DatasetMissing, match="not a regular file"):
        inspect(table)


def test_a_path_that_the_system_can_not_follow(table: Path) -> None:
    table.symlink_to(table)
    with pytest.raises(DatasetMissing, match="can't be read"):
        inspect(table)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(table: Path) -> None:
    table.write_bytes(b"a,b\n1,2\n")
    table.chmod(0)
    with pytest.raises(DatasetMissing, match="can't be read") as caught:
        inspect(table)
    assert f"chmod u+r '{table}'" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'1\r,"x\n\xff', DatasetNotUtf8),
        (b"\r", DatasetWithCarriageReturns),
        (b"1,1\n\n3\r", DatasetWithCarriageReturns),
        (b"a", DatasetEmpty),
        (b"1,1\n\n3", DatasetWithoutFinalNewline),
        (b"1\n\n", DatasetOneColumn),
        (b'1,1\n"\n', DatasetWithoutHeader),
        (b'a,b\n"\n1\n', DatasetWithQuotedNewlines),
        (b'a,b\n1\n"\n', DatasetRagged),
    ],
)
def test_of_several_faults_the_first_of_the_documented_order_is_told(
    table: Path, content: bytes, kind: type[DatasetError]
) -> None:
    table.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        inspect(table)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("content", "kind", "line"),
    [
        (b"a" * 50 + b",b\n1,2\n", DatasetWithoutHeader, 1),
        (b"a,b\n1,2\n" + b"x" * 50 + b",2\n1,2\n", DatasetRagged, 3),
    ],
)
def test_a_line_too_long_to_be_a_record(
    table: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, kind: type, line: int
) -> None:
    monkeypatch.setattr(inspection, "LONGEST_LINE", 40)
    monkeypatch.setattr(inspection, "BLOCK", 16)
    table.write_bytes(content)
    with pytest.raises(kind, match=f"line {line} is longer"):
        inspect(table)


# --- Blocks -------------------------------------------------------------------------------------


def try_inspect(path: Path) -> Shape | tuple[type[DatasetError], str, str]:
    try:
        return inspect(path)
    except DatasetError as error:
        return type(error), error.what, error.fix


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 11])
def test_where_a_block_ends_changes_nothing(
    table: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    for content in [good for good, _ in GOOD.values()] + [bad for bad, _, _ in BAD.values()]:
        table.write_bytes(content)
        at_once = try_inspect(table)
        with monkeypatch.context() as patch:
            patch.setattr(inspection, "BLOCK", block)
            assert try_inspect(table) == at_once, content


def test_memory_does_not_grow_with_the_file(employees: Path, table: Path) -> None:
    header, _, body = employees.read_bytes().partition(b"\n")
    with table.open("wb") as file:
        file.write(header + b"\n")
        for _ in range(5):
            file.write(body)
    del body
    tracemalloc.start()
    try:
        assert inspect(table).records == 5 * 74_500
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("record", [b'"1","2"\n', b'"1,1",2\n'])
def test_memory_stays_low_when_every_line_has_quotes(table: Path, record: bytes) -> None:
    table.write_bytes(b"a,b\n" + record * 300_000)
    tracemalloc.start()
    try:
        assert inspect(table).records == 300_000
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_file_of_one_endless_line_needs_no_more_memory(table: Path) -> None:
    with table.open("wb") as file:
        for _ in range(40):
            file.write(b"x" * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetEmpty):
            inspect(table)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
