"""The statistics of a table, and which tables are refused."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from dataset_steps.table import Table, TableError

MODULE = Path(__file__).resolve().parents[2] / "dags" / "dataset_statistics.py"
TABLE = [
    "id,team,pay,note",
    "1,north,10,",
    "2,south,20,a",
    "3,north,40.5,a",
    '4,south,,"b, quoted"',
]


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    return runpy.run_path(str(MODULE))


def table(lines: list[str], end: str = "\n") -> Table:
    return Table([end.join(lines).encode()], "data.csv")


def test_numbers_and_values_are_counted_of_the_whole_table(module: dict[str, Any]) -> None:
    found = module["compute_statistics"](table(TABLE), "team")
    assert found["records"] == 4
    assert found["columns"] == {
        "id": {"empty": 0, "minimum": 1, "maximum": 4, "mean": 2.5},
        "team": {"empty": 0, "values": {"north": 2, "south": 2}},
        "pay": {"empty": 1, "minimum": 10, "maximum": 40.5, "mean": 23.5},
        "note": {"empty": 1, "values": {"a": 2, "b, quoted": 1}},
    }


def test_another_dialect_has_the_same_statistics(module: dict[str, Any]) -> None:
    other = ["\ufeffid;team;pay;note", *(line.replace(",", ";", 3) for line in TABLE[1:])]
    assert module["compute_statistics"](table(other, "\r\n"), "team") == module[
        "compute_statistics"
    ](table(TABLE), "team")


def test_each_group_has_its_records_and_means(module: dict[str, Any]) -> None:
    found = module["compute_statistics"](table(TABLE), "team")
    assert found["group_by"] == "team"
    assert found["groups"] == {
        "north": {"records": 2, "means": {"id": 2, "pay": 25.25}},
        "south": {"records": 2, "means": {"id": 3, "pay": 20}},
    }


@pytest.mark.parametrize("odd", ["1_0", "nan", "inf", "-inf", "0x1", "ten"])
def test_what_is_no_number_for_people_makes_a_column_of_text(
    module: dict[str, Any], odd: str
) -> None:
    found = module["compute_statistics"](table(["a,b", "1,x", f"{odd},x"]), "b")
    assert found["columns"]["a"] == {"empty": 0, "values": {"1": 1, odd: 1}}
    assert found["groups"]["x"]["means"] == {}


def test_a_column_of_numbers_in_one_group_only_has_no_means(module: dict[str, Any]) -> None:
    found = module["compute_statistics"](table(["a,b", "1,x", "one,y"]), "b")
    assert [group["means"] for group in found["groups"].values()] == [{}, {}]


def test_a_column_of_many_values_is_not_counted_value_by_value(module: dict[str, Any]) -> None:
    rows = [f"name {i % 51},{i % 2}" for i in range(200)]
    found = module["compute_statistics"](table(["a,b", *rows]), "b")
    assert found["columns"]["a"] == {"empty": 0, "values": None}
    few = module["compute_statistics"](table(["a,b", *rows[:50]]), "b")
    assert len(few["columns"]["a"]["values"]) == 50


def test_a_table_without_a_record_has_nothing(module: dict[str, Any]) -> None:
    found = module["compute_statistics"](table(["a,b"]), "b")
    assert (found["records"], found["groups"]) == (0, {})


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "is empty"),
        (["id,Team", "1,x"], "no column team: it has id, Team"),
        (["team,team", "1,x"], "more than one column team"),
        (["id,team", "1,x", "2"], "line 3 has 1 fields, the header 2"),
        (["id,team", "1,x,y"], "line 2 has 3 fields, the header 2"),
        (["id,team", *(f"{i},{i}" for i in range(51))], "more than 50 values"),
        (["id,team", '1,"x'], "never closed"),
    ],
    ids=str,
)
def test_what_is_no_such_table_is_refused(
    module: dict[str, Any], lines: list[str], why: str
) -> None:
    with pytest.raises((TableError, ValueError), match=why):
        module["compute_statistics"](table(lines), "team")
