"""etl_workflow: a summary of the newest data, memory limits, pods or workspaces that are kept."""

from __future__ import annotations

import csv
import io
import json
from statistics import mean
from typing import Any

import pytest

from lab.errors import ConfError, ProofError, RunError
from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.support.control import Control

DAG = "etl_workflow"
FOLDER = "results/etl_workflow/"
KEY = f"{FOLDER}employee_summary.json"


def read_result(lab: Lab) -> bytes | None:
    """Read the bytes of the result, or return None if no run has written one yet."""
    try:
        return lab.read_object(KEY)
    except ProofError:
        return None


def read_summary(lab: Lab) -> Any:
    content = read_result(lab)
    assert content
    return json.loads(content)


def compute_departments(lab: Lab, commit: str) -> dict[str, Any]:
    """Compute the summary of a commit's dataset independently of the DAG."""
    with lab.checkout(commit) as checkout:
        content = checkout.read(lab.dataset_path).decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    found = {}
    for name in {row["Job Role"] for row in rows}:
        own = [row for row in rows if row["Job Role"] == name]
        left = sum(row["Attrition"] == "Left" for row in own)
        found[name] = {
            "head_count": len(own),
            "mean_income": pytest.approx(mean(int(r["Monthly Income"]) for r in own), abs=0.0051),
            "attrition_rate": pytest.approx(left / len(own), abs=0.000051),
        }
    return found


def test_a_run_leaves_the_summary_of_the_newest_dataset(lab: Lab) -> None:
    newest = lab.dataset()
    run = lab.run(DAG)
    found = read_summary(lab)
    data = found["data"]
    assert (found["run_id"], found["dag_version"]) == (run.id, run.dag_version)
    assert newest in lab.history(data["commit"])
    version = lab.dataset(data["commit"])
    assert (data["path"], data["md5"], data["size"]) == (
        lab.dataset_path,
        version.md5,
        version.size,
    )
    assert found["departments"] == compute_departments(lab, data["commit"])
    assert [entry["Key"] for entry in lab.list_objects(FOLDER)] == [KEY]


@pytest.mark.variation
def test_a_later_version_of_the_data_has_a_summary_of_its_own(lab: Lab) -> None:
    lab.run(DAG)
    before = read_summary(lab)
    lab.run("dataset_pipeline")
    lab.run(DAG)
    after = read_summary(lab)
    heads = [sum(d["head_count"] for d in s["departments"].values()) for s in (before, after)]
    assert heads[1] > heads[0]
    assert after["departments"] == compute_departments(lab, after["data"]["commit"])


def test_too_little_memory_is_said_to_be_that_and_the_old_result_stays(
    lab: Lab, control: Control
) -> None:
    lab.run(DAG)
    old = read_result(lab)
    run = lab.trigger(DAG, {"copies": 10_000})
    with pytest.raises(RunError) as caught:
        lab.follow(run)
    assert (
        "OOMKilled: transform needed more than its limit of 256Mi; "
        "raise memory= in dags/etl_workflow.py"
    ) in str(caught.value)
    assert "failed in transform" in str(caught.value)
    assert lab.outcomes(run)["transform"].attempts == 1  # with the same limit no retry can help
    assert read_result(lab) == old
    assert control.list_kept(run)
    lab.run(DAG, {"copies": 3})
    assert read_summary(lab)["departments"] == json.loads(old or b"{}")["departments"]


def test_what_a_run_leaves_for_reading_is_removed_by_a_later_one(
    lab: Lab, control: Control
) -> None:
    first = lab.run(DAG)
    second = lab.run(DAG)
    assert control.list_kept(first)
    assert not set(control.list_kept(first)) & set(control.list_kept(second))
    third = lab.run(DAG, {"keep_hours": 0})

    def require_removal() -> None:
        if left := [*control.list_kept(first), *control.list_kept(second)]:
            raise NotYet(f"{', '.join(left)} are still there")

    wait_until(require_removal, what="removal", timeout=120)
    assert control.list_kept(third)


@pytest.mark.parametrize(
    "conf",
    [{"copies": 0}, {"copies": 10_001}, {"copies": "two"}, {"keep_hours": -1}, {"keep_hours": 169}],
)
def test_a_conf_that_the_workflow_does_not_know_is_refused(lab: Lab, conf: dict[str, Any]) -> None:
    with pytest.raises(ConfError, match="refuses this conf"):
        lab.trigger(DAG, conf)
