"""data_pipeline_lab: the totals are those of the records, and the owner is told them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.errors import ConfError, RunError
from lab.lab import Lab
from tests.support.mailbox import read_messages

DAG = "data_pipeline_lab"
OWNER = "data-engineering"


def read_json(lab: Lab, key: str) -> Any:
    return json.loads(lab.read_object(key))


def compute_totals(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Compute number, total and average of each category, from amounts in whole cents."""
    cents: dict[str, list[int]] = {}
    for record in records:
        cents.setdefault(record["category"], []).append(round(record["value"] * 100))
    return {
        name: {
            "records": len(found),
            "total": sum(found) / 100,
            "average": sum(found) / len(found) / 100,
        }
        for name, found in cents.items()
    }


def generate_records(lab: Lab, seed: int) -> Any:
    """Run the DAG with this seed and return its records; delete them from the bucket."""
    key = lab.xcom(lab.run(DAG, {"seed": seed, "records": 20}), "generate")["key"]
    records = read_json(lab, key)
    lab.delete_object(key)
    return records


def test_the_owner_is_told_the_totals_of_the_records(lab: Lab) -> None:
    run = lab.run(DAG)
    records = read_json(lab, lab.xcom(run, "generate")["key"])
    assert [record["id"] for record in records] == list(range(500))
    assert {record["category"] for record in records} == {"A", "B", "C"}

    expected = compute_totals(records)
    summary = read_json(lab, lab.xcom(run, "aggregate")["key"])
    assert summary.keys() == expected.keys()
    for name, row in expected.items():
        assert summary[name] == pytest.approx(row, abs=0.006)

    (message,) = read_messages(lab, DAG, run.id)
    assert message["who"] == [OWNER]
    lines = message["text"].splitlines()
    for name, row in expected.items():
        wanted = f"Category {name}: {row['records']:.0f} records, total {row['total']:.2f}"
        assert any(line.startswith(wanted) for line in lines)
    assert lines[-1] == "Left out as bad: 0"


@pytest.mark.variation
def test_the_same_seed_gives_the_same_records_and_another_seed_others(lab: Lab) -> None:
    one, same, other = (generate_records(lab, seed) for seed in (7, 7, 8))
    assert one == same
    assert one != other
    assert len(one) == len(other) == 20


@pytest.mark.variation
def test_a_few_bad_records_are_left_out(lab: Lab) -> None:
    run = lab.run(DAG, {"records": 200, "invalid_share": 0.05})
    records = read_json(lab, lab.xcom(run, "generate")["key"])
    good = [record for record in records if record["value"] > 0]
    assert (len(records), len(good)) == (200, 190)
    summary = read_json(lab, lab.xcom(run, "aggregate")["key"])
    assert sum(row["records"] for row in summary.values()) == 190
    assert summary["A"] == pytest.approx(compute_totals(good)["A"], abs=0.006)
    (message,) = read_messages(lab, DAG, run.id)
    assert message["text"].endswith("Left out as bad: 10")


@pytest.mark.variation
def test_many_bad_records_are_refused_and_nobody_is_told_totals(lab: Lab) -> None:
    run = lab.trigger(DAG, {"records": 200, "invalid_share": 0.06})
    with pytest.raises(RunError, match=r"12 of 200 records are bad, more than 5%"):
        lab.follow(run)
    assert lab.outcomes(run)["validate"].attempts == 1  # no retry would help
    assert read_messages(lab, DAG, run.id) == []


@pytest.mark.parametrize(
    "conf",
    [
        {"records": 0},
        {"records": 100_001},
        {"records": "many"},
        {"records": 1.5},
        {"invalid_share": 1.1},
        {"invalid_share": -0.1},
        {"seed": None},
    ],
    ids=str,
)
def test_a_conf_that_the_dag_does_not_take_starts_no_run(lab: Lab, conf: dict[str, Any]) -> None:
    before = [run.id for run in lab.runs_of(DAG)]
    (name,) = conf
    with pytest.raises(ConfError, match=rf"{DAG} refuses this conf: .*{name}"):
        lab.trigger(DAG, conf)
    assert [run.id for run in lab.runs_of(DAG)] == before
