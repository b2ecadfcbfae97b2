"""critical_pipeline: who is told of a missed deadline, and that it is while something is late."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, wait_until
from tests.support.control import Control
from tests.support.mailbox import read_messages

DAG = "critical_pipeline"
TASK_WITHIN = 8  # seconds, from the run's start
TASK, WATCH = "time_sensitive_task", "time_sensitive_task_deadline"
OWNER, ESCALATION = "data-engineering", "on-call"
TASK_IS_LATE, RUN_IS_LATE = f"{DAG}: {TASK} is late", f"{DAG}: the run is late"


def messages_by_subject(lab: Lab, run: Run) -> dict[str, dict[str, Any]]:
    """Read the notifications of this run, by subject."""
    return {message["subject"]: message for message in read_messages(lab, DAG, run.id)}


def is_before_task_end(lab: Lab, run: Run, message: dict[str, Any]) -> bool:
    """Return whether the notification was sent before the task ended."""
    ended = lab.outcomes(run)[TASK].ended
    assert ended
    return datetime.fromisoformat(message["at"]) < ended


def run_on_time(lab: Lab) -> Run:
    """Return a run whose task ended before its deadline; a busy machine gets five tries."""
    for _ in range(5):
        began = time.monotonic()
        run = lab.run(DAG, {"work_seconds": 0})
        if time.monotonic() - began < TASK_WITHIN:
            return run
    pytest.fail("this machine is too busy for any deadline")


def test_who_is_told_depends_on_which_deadline_is_missed(lab: Lab) -> None:
    quick = run_on_time(lab)
    slow, slower = (lab.trigger(DAG, {"work_seconds": seconds}) for seconds in (13, 35))
    for run in (slow, slower):
        lab.follow(run)  # none fails for being late

    messages = messages_by_subject(lab, slow)
    assert {subject: m["who"] for subject, m in messages.items()} == {TASK_IS_LATE: [OWNER]}
    assert is_before_task_end(lab, slow, messages[TASK_IS_LATE])

    messages = messages_by_subject(lab, slower)
    assert messages[TASK_IS_LATE]["who"] == [OWNER]
    assert messages[RUN_IS_LATE]["who"] == [OWNER, ESCALATION]
    assert all(is_before_task_end(lab, slower, message) for message in messages.values())

    assert messages_by_subject(lab, quick) == {}  # by now both of its deadlines are over
    assert lab.outcomes(quick)[WATCH].state == "success"


@pytest.mark.long
def test_people_are_told_though_the_triggerer_was_killed(lab: Lab, control: Control) -> None:
    """While the run goes on: nothing waits for its end, long after the last deadline."""
    run = lab.trigger(DAG, {"work_seconds": 75})

    def require_deferred() -> None:
        if lab.outcomes(run)[WATCH].state != "deferred":
            raise NotYet(f"{WATCH} is {lab.outcomes(run)[WATCH]}")

    def require_messages() -> None:
        if missing := {TASK_IS_LATE, RUN_IS_LATE} - messages_by_subject(lab, run).keys():
            raise NotYet(f"nobody was told: {missing}")

    wait_until(require_deferred, what=WATCH, timeout=120)
    control.kill("airflow-triggerer")
    control.restore()
    wait_until(require_messages, what="the messages", timeout=120, interval=0.5)
    assert messages_by_subject(lab, run).keys() == {TASK_IS_LATE, RUN_IS_LATE}
    assert lab.outcomes(run)[TASK].ended is None
