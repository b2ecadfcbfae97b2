"""Deadlines: people are notified while something is late, not after it has ended.

Airflow has deadlines of whole runs (`DeadlineAlert`); `run_is_late` is their callback. `deadline()`
is for a single task, which Airflow 3.3 has no deadline for: it adds a second task, which takes no
worker. The scheduler hands it to the triggerer, which watches the first task's state until it has
ended or the deadline has passed. If a triggerer is killed, the watch stays in Airflow's database
for the next one.
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
PATIENCE = 3600  # seconds for which writing a notification is retried
PAUSES = wait_exponential(max=30)  # between two attempts to write a notification

log = logging.getLogger(__name__)


def deadline(task: Any, *, within: timedelta, tell: list[str]) -> TaskDeadline:
    """Notify the recipients in `tell` when `task` has not ended `within` that time of its run.

    It counts from the run's start, not the task's: a task that waits for its turn is late, too. A
    task that has ended in time causes no notification, whatever its state: failures have callbacks
    of their own. A missed deadline fails no run, but a notification that can't be written does.
    """
    watched = getattr(task, "operator", task).task_id
    return TaskDeadline(watched=watched, within=within, tell=tell)


class TaskDeadline(BaseOperator):
    """The task `<watched>_deadline`, which starts and ends in the triggerer."""

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
        """Raise NotImplementedError; never called, as the trigger ends the task itself."""
        raise NotImplementedError


class Watch(BaseTrigger):
    """Ends when the task `watched` has ended, or when people were notified that it is late."""

    def __init__(self, watched: str, began: str, seconds: float, recipients: list[str]) -> None:
        super().__init__()
        self.watched = watched
        self.began = began  # a template that the triggerer has rendered
        self.seconds = seconds
        self.recipients = recipients

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("watched", "began", "seconds", "recipients")
        return f"{__name__}.{type(self).__qualname__}", {
            name: getattr(self, name) for name in names
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        due = datetime.fromisoformat(self.began) + timedelta(seconds=self.seconds)
        while not has_ended(await self.read_states()):
            if datetime.now(UTC) >= due:
                await self.notify(due)
                break
            await asyncio.sleep(POLL)
        yield TaskSuccessEvent()

    async def read_states(self) -> dict[str, str | None]:
        """Return the state of the watched task; of a mapped one, the states of its instances."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        found = await asyncio.to_thread(
            RuntimeTaskInstance.get_task_states,
            dag_id=ti.dag_id,
            run_ids=[ti.run_id],
            task_ids=[self.watched],
        )
        return dict(found.get(ti.run_id, {}))

    async def notify(self, due: datetime) -> None:
        ti: Any = self.task_instance
        subject = f"{ti.dag_id}: {self.watched} is late"
        text = (
            f"{self.watched} should have ended {self.seconds:g} s after its run began, "
            f"by {due.isoformat(timespec='seconds')}, and has not ended yet."
        )
        await tell_with_retries(ti.dag_id, ti.run_id, self.recipients, subject, text)


def has_ended(states: Mapping[str, str | None]) -> bool:
    """Return whether the task has instances, all of which have ended."""
    return bool(states) and ENDED.issuperset(states.values())


async def run_is_late(recipients: list[str], context: Mapping[str, Any]) -> None:
    """Notify the recipients that the run missed its deadline: the callback of a DeadlineAlert."""
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    text = f"The run should have ended by {context['deadline']['deadline_time']}, and has not."
    await tell_with_retries(dag_id, run_id, recipients, f"{dag_id}: the run is late", text)


async def tell_with_retries(*arguments: Any) -> None:
    """Notify people as `tell` does; if the bucket fails, retry for PATIENCE seconds."""
    retrying = AsyncRetrying(
        wait=PAUSES,
        stop=stop_after_delay(PATIENCE),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    await retrying(asyncio.to_thread, tell, *arguments)
