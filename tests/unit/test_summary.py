"""The steps of `etl_workflow` without servers: their input and their output."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dataset_steps import kept, transform
from dataset_steps.errors import StepError
from dataset_steps.extract import write_columns

HEADER = "id,Attrition,Name,Monthly Income,Job Role\n"


def extract_columns(content: bytes, folder: Path) -> tuple[int, str]:
    """Write an extract of `content`; return the number of its records and its text."""
    source, into = folder / "staff.csv", folder / "extract.csv"
    source.write_bytes(content)
    count = write_columns(source, into)
    return count, into.read_text("utf-8")


def test_an_extract_has_the_columns_wanted_wherever_they_are(tmp_path: Path) -> None:
    content = HEADER + '1,Left,"a, b",1000,"Health, ""Care"""\n2,Stayed,"c\nd",2000,Größe\n'
    assert extract_columns(content.encode(), tmp_path) == (
        2,
        'Job Role,Monthly Income,Attrition\n"Health, ""Care""",1000,Left\nGröße,2000,Stayed\n',
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "staff.csv: is empty"),
        (b"Job Role,Attrition\n", "staff.csv: has no column Monthly Income: it has Job Role"),
        (HEADER.encode(), "staff.csv: has no record"),
        (HEADER.encode() + b"1,2,3,4\n", "staff.csv: line 2 has 4 fields, the header 5"),
        (HEADER.encode() + b"\n", "staff.csv: has no record"),
        (
            HEADER.encode() + b"1,Left,\xff,1,Media\n",
            "staff.csv: byte 0xFF at offset [0-9]+, in line 2, is not UTF-8",
        ),
        (HEADER.encode() + b'1,Left,"x,1,Media\n', "staff.csv: a quote in the record of line 2"),
    ],
)
def test_data_of_another_shape_is_refused_and_the_old_extract_stays(
    content: bytes, text: str, tmp_path: Path
) -> None:
    (tmp_path / "extract.csv").write_text("old", "utf-8")
    with pytest.raises(StepError, match=text) as caught:
        extract_columns(content, tmp_path)
    assert caught.value.exit_code == 65
    assert (tmp_path / "extract.csv").read_text("utf-8") == "old"


def test_a_summary_is_exact_and_in_order() -> None:
    rows = [["B", "1", "Left"], ["B", "2", "Stayed"], ["B", "2.5", "Left"], ["A", "-0.1", "Stayed"]]
    summary = transform.summarise(rows)
    assert summary == {
        "A": {"head_count": 1, "mean_income": -0.1, "attrition_rate": 0.0},
        "B": {"head_count": 3, "mean_income": 1.83, "attrition_rate": 0.6667},
    }
    assert list(summary) == ["A", "B"]
    random.Random(1).shuffle(rows)
    assert transform.summarise(rows) == summary


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (["B", "much", "Left"], "record 2 of the dataset has 'much' as Monthly Income"),
        (["B", "", "Left"], "record 2 of the dataset has '' as Monthly Income"),
        (["B", "NaN", "Left"], "'NaN' as Monthly Income, which is not a number"),
        (["B", "Infinity", "Left"], "'Infinity' as Monthly Income"),
        (["B", "1", "Gone"], "'Gone' as Attrition, which is not Left or Stayed"),
        (["B", "1", ""], "'' as Attrition"),
    ],
)
def test_a_value_of_another_kind_is_refused(row: list[str], text: str) -> None:
    with pytest.raises(StepError, match=text):
        transform.summarise([["B", "1", "Left"], row])


def test_what_copies_may_be() -> None:
    assert transform.parse_copies({}) == 1
    assert transform.parse_copies({"COPIES": "10000"}) == 10_000


@pytest.mark.parametrize("copies", ["0", "10001", "-1", "1.5", "many", "", "\u0663", "²"])
def test_what_copies_may_not_be(copies: str) -> None:
    with pytest.raises(StepError, match="COPIES is"):
        transform.parse_copies({"COPIES": copies})


def test_what_hours_may_be() -> None:
    assert [kept.parse_keep_hours(env) for env in ({}, {"KEEP_HOURS": ""})] == [None, None]
    assert kept.parse_keep_hours({"KEEP_HOURS": "0"}) == 0
    assert kept.parse_keep_hours({"KEEP_HOURS": "1e-05"}) == 0.00001


@pytest.mark.parametrize("hours", ["-1", "nan", "a day"])
def test_what_hours_may_not_be(hours: str) -> None:
    with pytest.raises(StepError, match=f"KEEP_HOURS is '{hours}'"):
        kept.parse_keep_hours({"KEEP_HOURS": hours})
