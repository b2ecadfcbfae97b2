"""A run and a task with deadlines: people are notified when either is late.

What was an SLA in Airflow 2 is a deadline now. Airflow has one for whole runs, `DeadlineAlert`: it
counts from when the run was queued, and its callback runs in the triggerer. `deadline()` of the
lab's plugin `lab_deadlines` is one for a single task, and counts from the run's start.

Both are short, so that missing one can be watched: `lab run critical_pipeline --conf
'{"work_seconds": 12}'` misses the task's, 25 the run's, too. A real pipeline that runs every two
hours would give its task half an hour. The notifications are in the lab's bucket, under
`notifications/critical_pipeline/`. A run does not fail for being late.
"""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.sdk import DAG, Param, task
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from lab_deadlines import deadline, run_is_late
from steps import clock, named

OWNER, ESCALATION = "data-engineering", "on-call"
RUN_WITHIN = timedelta(seconds=20)
TASK_WITHIN = timedelta(seconds=8)

with DAG(
    named("critical_pipeline"),
    description="A task and a run with deadlines; people are told while they are late",
    schedule=clock("0 */2 * * *"),
    catchup=False,
    default_args={"owner": OWNER, "retries": 3, "retry_delay": timedelta(seconds=3)},
    params={
        "work_seconds": Param(
            0.5,
            type="number",
            minimum=0,
            maximum=600,
            description="How long the time-sensitive task works",
        )
    },
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=RUN_WITHIN,
        callback=AsyncCallback(run_is_late, kwargs={"recipients": [OWNER, ESCALATION]}),
    ),
    tags=["deadlines"],
    doc_md=__doc__,
):

    @task
    def time_sensitive_task(params: dict[str, float]) -> None:
        """Sleep for `work_seconds`, in place of work that must be done in time."""
        time.sleep(params["work_seconds"])

    deadline(time_sensitive_task(), within=TASK_WITHIN, tell=[OWNER])
