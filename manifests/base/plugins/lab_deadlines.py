"""Deadlines: people are told that something is late while it is late, not after it has ended.

Airflow has deadlines of whole runs (`DeadlineAlert`); `run_is_late` is what those call.
`deadline()` is one of a single task, which Airflow 3.3 does not have: a task beside it, which takes
no worker. The scheduler hands it to the triggerer, and that watches the other task's state until it
has ended or the time is up. A triggerer that is killed leaves the watch in Airflow's database, for
the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TaskSuccessEvent, TriggerEvent
from tenacity import AsyncRetrying, before_sleep_log, stop_after_delay, wait_exponential

from lab_notifications import tell

ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}
POLL = 1  # seconds between two looks at a task
PATIENCE = 3600  # seconds that the bucket may take to be there again
PAUSES = wait_exponential(max=30)  # between two tries to tell somebody

log = logging.getLogger(__name__)


def deadline(task: Any, *, within: timedelta, tell: list[str]) -> TaskDeadline:
    """`tell` are told when `task` has not ended `within` that time after its run began.

    It counts from the run's start, not the task's: what waits for its turn is late, too. A task
    that has ended in time, in whichever state, is left alone: failures have callbacks of their own.
    No run fails because of a missed deadline, but one does whose people could not be told of it.
    """
    watched = getattr(task, "operator", task).task_id
    return TaskDeadline(watched=watched, within=within, tell=tell)


class TaskDeadline(BaseOperator):
    """The task `<watched>_deadline`: it begins and ends in the triggerer."""

    template_fields: Sequence[str] = ("began",)
    start_from_trigger = True

    def __init__(self, *, watched: str, within: timedelta, tell: list[str], **kwargs: Any) -> None:
        super().__init__(task_id=f"{watched}_deadline", **kwargs)
        self.began = "{{ dag_run.start_date.isoformat() }}"
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{Watch.__module__}.{Watch.__qualname__}",
            trigger_kwargs={
                "watched": watched,
                "began": self.began,
                "seconds": within.total_seconds(),
                "recipients": tell,
            },
            next_method="execute",
        )

    def execute(self, context: Any, event: Any = None) -> None:
        """Is never called: the trigger ends the task itself."""
        raise NotImplementedError


class Watch(BaseTrigger):
    """Ends when the task `watched` has ended, or when people have been told that it is late."""

    def __init__(self, watched: str, began: str, seconds: float, recipients: list[str]) -> None:
        super().__init__()
        self.watched = watched
        self.began = began  # rendered by the triggerer, in the place of Airflow's template
        self.seconds = seconds
        self.recipients = recipients

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("watched", "began", "seconds", "recipients")
        return f"{__name__}.{type(self).__qualname__}", {
            name: getattr(self, name) for name in names
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        due = datetime.fromisoformat(self.began) + timedelta(seconds=self.seconds)
        while not has_ended(await self.states()):
            if datetime.now(UTC) >= due:
                await self.say(due)
                break
            await asyncio.sleep(POLL)
        yield TaskSuccessEvent()

    async def states(self) -> dict[str, str | None]:
        """The state of the watched task; of a mapped one, of each instance."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        found = await asyncio.to_thread(
            RuntimeTaskInstance.get_task_states,
            dag_id=ti.dag_id,
            run_ids=[ti.run_id],
            task_ids=[self.watched],
        )
        return dict(found.get(ti.run_id, {}))

    async def say(self, due: datetime) -> None:
        ti: Any = self.task_instance
        subject = f"{ti.dag_id}: {self.watched} is late"
        text = (
            f"{self.watched} should have ended {self.seconds:g} s after its run began, "
            f"by {due.isoformat(timespec='seconds')}, and has not ended yet."
        )
        await tell_patiently(ti.dag_id, ti.run_id, self.recipients, subject, text)


def has_ended(states: Mapping[str, str | None]) -> bool:
    """Whether there is an instance of a task, and none that has not ended."""
    return bool(states) and ENDED.issuperset(states.values())


async def run_is_late(recipients: list[str], context: Mapping[str, Any]) -> None:
    """The recipients were told that the run missed its deadline: for a DeadlineAlert's callback."""
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    text = f"The run should have ended by {context['deadline']['deadline_time']}, and has not."
    await tell_patiently(dag_id, run_id, recipients, f"{dag_id}: the run is late", text)


async def tell_patiently(*arguments: Any) -> None:
    """People have been told, as by `tell`; a bucket that does not take it is asked for an hour."""
    retrying = AsyncRetrying(
        wait=PAUSES,
        stop=stop_after_delay(PATIENCE),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    await retrying(asyncio.to_thread, tell, *arguments)
