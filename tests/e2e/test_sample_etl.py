"""sample_etl: its report is what the dataset holds, or the report from before."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.client import s3
from lab.client.versions import object_key
from lab.errors import RunError
from lab.lab import Lab
from lab.wait import NotYet, until
from tests.support.idle import await_idle

DAG = "sample_etl"
KEY = f"results/{DAG}/report.json"


def report(lab: Lab) -> dict[str, Any]:
    body = s3.client(lab).get_object(Bucket=lab.s3_bucket, Key=KEY)["Body"]
    found: dict[str, Any] = json.loads(body.read())
    return found


def records(lab: Lab, commit: str) -> list[dict[str, str]]:
    with lab.checkout(commit) as checkout:
        return list(csv.DictReader(checkout.read(lab.dataset_path).decode().splitlines()))


def mean(rows: list[dict[str, str]], column: str) -> float:
    return sum(int(row[column]) for row in rows) / len(rows)


@contextmanager
def object_replaced(lab: Lab, content: bytes | None) -> Iterator[None]:
    """The newest version's object is gone, or holds other bytes; restored afterwards."""
    client = s3.client(lab)
    place = {"Bucket": lab.s3_bucket, "Key": object_key("store", lab.dataset())}
    kept = client.get_object(**place)["Body"].read()
    if content is None:
        client.delete_object(**place)
    else:
        client.put_object(**place, Body=content)
    try:
        yield
    finally:
        client.put_object(**place, Body=kept)


def test_the_report_is_what_the_newest_version_holds(lab: Lab) -> None:
    run = lab.run(DAG)
    found = report(lab)
    assert found["run_id"] == run.id or found["caused_by"]  # a later run may have replaced it
    assert found["version"] == lab.xcom(run, "extract")
    assert found["version"]["md5"] == lab.dataset().md5
    rows = records(lab, found["version"]["commit"])
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
            assert group["means"][column] == pytest.approx(mean(of_role, column), abs=1e-6)


@pytest.mark.variation
def test_another_column_can_make_the_groups(lab: Lab) -> None:
    lab.run(DAG, {"group_by": "Education Level"})
    rows = records(lab, "main")
    groups = {name: group["records"] for name, group in report(lab)["groups"].items()}
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
    before = report(lab)
    with object_replaced(lab, content), pytest.raises(RunError, match=why):
        lab.run(DAG)
    assert report(lab) == before


@pytest.mark.variation
def test_a_column_that_is_not_there_is_refused_with_those_that_are(lab: Lab) -> None:
    run = lab.trigger(DAG, {"group_by": "Department"})
    with pytest.raises(RunError, match=r"no column 'Department', only Employee ID, Age"):
        lab.follow(run)
    assert lab.outcomes(run)["transform"].attempts == 1


@pytest.mark.variation
def test_a_new_summary_of_etl_workflow_starts_a_run(lab: Lab) -> None:
    # Airflow 3.3 drops an event that comes while one run is under way, and another event waits.
    await_idle(lab, DAG)
    cause = lab.run("etl_workflow")

    def caused() -> dict[str, Any]:
        try:
            found = report(lab)
        except s3.client(lab).exceptions.NoSuchKey as error:
            raise NotYet("there is no report") from error
        if not any(why["run_id"] == cause.id for why in found["caused_by"]):
            raise NotYet(f"the report is of {found['run_id']}, caused by {found['caused_by']}")
        return found

    found = until(caused, what=KEY, timeout=300, interval=0.5)
    because = {"asset": "employee_summary", "dag_id": "etl_workflow", "run_id": cause.id}
    assert because in found["caused_by"]  # beside it may stand earlier runs, when many came at once
    assert {why["asset"] for why in found["caused_by"]} == {"employee_summary"}
    assert found["version"]["md5"] == lab.dataset().md5
