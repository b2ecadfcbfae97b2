"""The default dataset has the same bytes everywhere, and is plausible."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from lab.dataset.employees import EMPLOYEES_MD5, EMPLOYEES_SIZE, write_employees
from lab.dataset.inspection import Shape, inspect, inspect_table

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
        "PYTHONPATH": str(Path(__file__).parents[2]),
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
    assert inspect_table(table).md5 == EMPLOYEES_MD5
    assert sorted(table.parent.iterdir()) == [leftover, table]
