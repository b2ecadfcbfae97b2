"""sales_pipeline: what has landed is in the warehouse, or the warehouse stays as it was."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from typing import Any

import pytest

from lab.errors import ConfError, RunError
from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.support.landing import DAG, PATIENCE, WAREHOUSE, Landing

OWNER = "data-engineering"


@pytest.fixture
def landing(lab: Lab) -> Landing:
    """Return an empty landing zone."""
    place = Landing(lab)
    place.clear()
    return place


def read_warehouse(landing: Landing) -> list[dict[str, str]]:
    """Read all records of the warehouse."""
    return list(csv.DictReader(io.StringIO(landing.read(WAREHOUSE).decode())))


def read_messages(landing: Landing) -> list[dict[str, Any]]:
    found = landing.list_objects(f"notifications/{DAG}/")
    return [json.loads(landing.read(entry["Key"])) for entry in found]


def test_before_anything_has_landed_the_warehouse_has_a_sample(lab: Lab, landing: Landing) -> None:
    run = lab.run(DAG)
    found = read_warehouse(landing)
    assert found[0] == {"id": "0", "amount": "100", "city": "NYC", "revenue_category": "low"}
    assert [row["amount"] for row in found] == [str(100 + i * 10) for i in range(1000)]
    categories = Counter(row["revenue_category"] for row in found)
    assert categories == {"low": 1, "medium": 40, "high": 959}

    lineage = landing.read_lineage()
    digest = hashlib.sha256(landing.read(WAREHOUSE)).hexdigest()
    assert (lineage["run_id"], lineage["warehouse_sha256"]) == (run.id, digest)
    (message,) = [m for m in read_messages(landing) if m["run_id"] == run.id]
    assert message["who"] == [OWNER]
    assert "1000 records" in message["text"]
    event = lab.events("sales_warehouse")[-1]
    assert (event["run_id"], event["records"]) == (run.id, 1000)


@pytest.mark.variation
def test_tasks_hand_each_other_references_and_no_records(lab: Lab, landing: Landing) -> None:
    run = lab.run(DAG)
    for task in ("extract_sales_data", "validate_data", "transform_data"):
        reference = lab.xcom(run, task)
        assert reference.keys() == {"key", "sha256", "records"}
        content = landing.read(reference["key"])
        assert hashlib.sha256(content).hexdigest() == reference["sha256"]


@pytest.mark.variation
def test_a_task_that_fails_is_tried_again_until_it_works(lab: Lab, landing: Landing) -> None:
    run = lab.run(DAG, {"fail_times": 2})
    attempts = {name: outcome.attempts for name, outcome in lab.outcomes(run).items()}
    others = ("validate_data", "transform_data", "load_to_warehouse", "send_notification")
    assert attempts == {"extract_sales_data": 3, **dict.fromkeys(others, 1)}
    assert landing.read_lineage()["run_id"] == run.id


@pytest.mark.variation
def test_bad_data_leaves_the_warehouse_as_it_is_until_it_is_mended(
    lab: Lab, landing: Landing
) -> None:
    good = landing.put("good", *range(1, 21))
    landing.wait_until_loaded(good)
    landing.wait_until_quiet()
    before = landing.read(WAREHOUSE)

    bad = landing.put("bad", -1, "many", 5)
    complaint = f"{bad}: 1 of 3 records are valid"
    (message, *_) = wait_until(
        lambda: find_complaints(landing, complaint),
        what="a complaint",
        timeout=PATIENCE,
        interval=0.5,
    )
    assert message["who"] == [OWNER]
    assert message["subject"] == f"{DAG}: validate_data failed"
    run = lab.trigger(DAG)
    with pytest.raises(RunError, match=complaint):
        lab.follow(run)
    assert lab.outcomes(run)["validate_data"].attempts == 1  # no retry would help
    assert landing.read(WAREHOUSE) == before

    landing.put("bad", 1, 501, 5)
    landing.wait_until_loaded(good, bad)
    expected = {f"{landing.mark}-bad-{n}" for n in range(3)}
    assert expected <= {row["id"] for row in read_warehouse(landing)}
    assert read_warehouse(landing)[1]["revenue_category"] == "high"  # "bad" sorts before "good"


def find_complaints(landing: Landing, text: str) -> list[dict[str, Any]]:
    """Return the notifications that hold this text. Raises NotYet if there is none."""
    found = [message for message in read_messages(landing) if text in message["text"]]
    if not found:
        raise NotYet(f"nobody was told that {text}")
    return found


@pytest.mark.variation
def test_a_second_run_for_the_same_files_makes_the_same_bytes(lab: Lab, landing: Landing) -> None:
    landing.wait_until_loaded(landing.put("one", 5), landing.put("two", 7))
    landing.wait_until_quiet()
    once = landing.read(WAREHOUSE)
    run = lab.run(DAG)
    assert landing.read(WAREHOUSE) == once
    assert landing.read_lineage()["run_id"] == run.id


@pytest.mark.parametrize(
    "conf",
    [{"fail_times": 4}, {"fail_times": 0.5}, {"min_valid": 1.1}, {"min_valid": "most"}],
    ids=str,
)
def test_a_conf_that_makes_no_sense_starts_no_run(lab: Lab, conf: dict[str, Any]) -> None:
    before = [run.id for run in lab.runs_of(DAG)]
    (name,) = conf
    with pytest.raises(ConfError, match=name):
        lab.trigger(DAG, conf)
    assert [run.id for run in lab.runs_of(DAG)] == before
