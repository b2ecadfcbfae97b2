"""sample_etl: its report is what the dataset holds, or the report from before."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.errors import ProofError, RunError
from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.support.dag_runs import wait_until_idle

DAG = "sample_etl"
KEY = f"results/{DAG}/report.json"


def read_report(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.read_object(KEY))
    return found


def read_records(lab: Lab, commit: str) -> list[dict[str, str]]:
    with lab.checkout(commit) as checkout:
        return list(csv.DictReader(checkout.read(lab.dataset_path).decode().splitlines()))


def compute_mean(rows: list[dict[str, str]], column: str) -> float:
    return sum(int(row[column]) for row in rows) / len(rows)


@contextmanager
def replacing_object(lab: Lab, content: bytes | None) -> Iterator[None]:
    """Delete the newest version's object, or give it other bytes; restore it afterwards."""
    key = lab.object_key(lab.dataset().md5)
    kept = lab.read_object(key)
    if content is None:
        lab.delete_object(key)
    else:
        lab.put_object(key, content)
    try:
        yield
    finally:
        lab.put_object(key, kept)


def test_the_report_is_what_the_newest_version_holds(lab: Lab) -> None:
    run = lab.run(DAG)
    found = read_report(lab)
    assert found["run_id"] == run.id or found["caused_by"]  # a later run may have replaced it
    assert found["version"] == lab.xcom(run, "extract")
    assert found["version"]["md5"] == lab.dataset().md5
    rows = read_records(lab, found["version"]["commit"])
    assert found["records"] == len(rows)
    income = [int(row["Monthly Income"]) for row in rows]
    assert found["columns"]["Monthly Income"] == {
        "empty": 0,
        "minimum": min(income),
        "maximum": max(income),
        "mean": pytest.approx(sum(income) / len(income), abs=1e-6),
    }
    assert found["columns"]["Overtime"] == {
        "empty": 0,
        "values": Counter(row["Overtime"] for row in rows),
    }
    assert found["columns"].keys() == rows[0].keys()
    roles = {row["Job Role"] for row in rows}
    assert found["groups"].keys() == roles
    for role in roles:
        of_role = [row for row in rows if row["Job Role"] == role]
        group = found["groups"][role]
        assert group["records"] == len(of_role)
        for column in ("Age", "Monthly Income"):
            assert group["means"][column] == pytest.approx(compute_mean(of_role, column), abs=1e-6)


@pytest.mark.variation
def test_another_column_can_make_the_groups(lab: Lab) -> None:
    lab.run(DAG, {"group_by": "Education Level"})
    rows = read_records(lab, "main")
    groups = {name: group["records"] for name, group in read_report(lab)["groups"].items()}
    assert groups == Counter(row["Education Level"] for row in rows)


@pytest.mark.variation
@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "there is no object"), (b"Job Role\nMedia\n", "is not what the pointer")],
    ids=["gone", "other bytes"],
)
def test_what_cannot_be_read_leaves_the_old_report(
    lab: Lab, content: bytes | None, why: str
) -> None:
    lab.run(DAG)
    before = read_report(lab)
    with replacing_object(lab, content), pytest.raises(RunError, match=why):
        lab.run(DAG)
    assert read_report(lab) == before


@pytest.mark.variation
def test_a_column_that_is_not_there_is_refused_with_those_that_are(lab: Lab) -> None:
    run = lab.trigger(DAG, {"group_by": "Department"})
    with pytest.raises(RunError, match="no column Department: it has Employee ID, Age"):
        lab.follow(run)
    assert lab.outcomes(run)["transform"].attempts == 1


@pytest.mark.variation
def test_a_new_summary_of_etl_workflow_starts_a_run(lab: Lab) -> None:
    # Airflow 3.3 drops an event that comes while one run is under way, and another event waits.
    wait_until_idle(lab, DAG)
    cause = lab.run("etl_workflow")

    def find_caused() -> dict[str, Any]:
        try:
            found = read_report(lab)
        except ProofError as error:
            raise NotYet("there is no report") from error
        if not any(why["run_id"] == cause.id for why in found["caused_by"]):
            raise NotYet(f"the report is of {found['run_id']}, caused by {found['caused_by']}")
        return found

    found = wait_until(find_caused, what=KEY, timeout=300, interval=0.5)
    because = {"asset": "employee_summary", "dag_id": "etl_workflow", "run_id": cause.id}
    assert because in found["caused_by"]  # next to earlier runs, if several came at once
    assert {why["asset"] for why in found["caused_by"]} == {"employee_summary"}
    assert found["version"]["md5"] == lab.dataset().md5
