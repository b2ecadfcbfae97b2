"""critical_pipeline: who is told of a missed deadline, and that it is while something is late."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest

from lab.client import s3
from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, until
from tests.support.control import Control

DAG = "critical_pipeline"
TASK_WITHIN = 8  # seconds, from the run's start
TASK, WATCH = "time_sensitive_task", "time_sensitive_task_deadline"
OWNER, ESCALATION = "data-engineering", "on-call"
TASK_IS_LATE, RUN_IS_LATE = f"{DAG}: {TASK} is late", f"{DAG}: the run is late"


def told(lab: Lab, run: Run) -> dict[str, dict[str, Any]]:
    """What people have been told of this run, by the subject."""
    client = s3.client(lab)
    place = {"Bucket": lab.s3_bucket, "Prefix": f"notifications/{DAG}/"}
    keys = [o["Key"] for o in client.list_objects_v2(**place).get("Contents", [])]
    found = [client.get_object(Bucket=lab.s3_bucket, Key=key)["Body"].read() for key in keys]
    return {m["subject"]: m for m in map(json.loads, found) if m["run_id"] == run.id}


def while_at_work(lab: Lab, run: Run, message: dict[str, Any]) -> bool:
    """Whether people were told before the task ended."""
    ended = lab.outcomes(run)[TASK].ended
    assert ended
    return datetime.fromisoformat(message["at"]) < ended


def on_time(lab: Lab) -> Run:
    """A run whose task had ended before it was late; a busy machine is given five tries."""
    for _ in range(5):
        asked = time.monotonic()
        run = lab.run(DAG, {"work_seconds": 0})
        if time.monotonic() - asked < TASK_WITHIN:
            return run
    pytest.fail("this machine is too busy for any deadline")


def test_who_is_told_depends_on_which_deadline_is_missed(lab: Lab) -> None:
    quick = on_time(lab)
    slow, slower = (lab.trigger(DAG, {"work_seconds": seconds}) for seconds in (13, 35))
    for run in (slow, slower):
        lab.follow(run)  # none fails for being late

    messages = told(lab, slow)
    assert {subject: m["who"] for subject, m in messages.items()} == {TASK_IS_LATE: [OWNER]}
    assert while_at_work(lab, slow, messages[TASK_IS_LATE])

    messages = told(lab, slower)
    assert messages[TASK_IS_LATE]["who"] == [OWNER]
    assert messages[RUN_IS_LATE]["who"] == [OWNER, ESCALATION]
    assert all(while_at_work(lab, slower, message) for message in messages.values())

    assert told(lab, quick) == {}  # by now both of its deadlines are over
    assert lab.outcomes(quick)[WATCH].state == "success"


@pytest.mark.long
def test_people_are_told_though_the_triggerer_was_killed(lab: Lab, control: Control) -> None:
    """While the run goes on: nothing waits for its end, long after the last deadline."""
    run = lab.trigger(DAG, {"work_seconds": 75})

    def watched() -> None:
        if lab.outcomes(run)[WATCH].state != "deferred":
            raise NotYet(f"{WATCH} is {lab.outcomes(run)[WATCH]}")

    def all_told() -> None:
        if missing := {TASK_IS_LATE, RUN_IS_LATE} - told(lab, run).keys():
            raise NotYet(f"nobody was told: {missing}")

    until(watched, what=WATCH, timeout=120)
    control.kill("airflow-triggerer")
    control.restore()
    until(all_told, what="the messages", timeout=120, interval=0.5)
    assert told(lab, run).keys() == {TASK_IS_LATE, RUN_IS_LATE}
    assert lab.outcomes(run)[TASK].ended is None
