"""`step()`: one command of one image, as a task. The same argv wherever it runs.

Where it runs is said by STEP_RUNTIME in Airflow's environment, so no DAG has to ask.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronTriggerTimetable, Param

import runtimes

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

COMMAND = "dataset-steps"
TEMPLATE = "step"

# Rendered by Airflow for each run; neither dates (a run by API has none) nor the run's conf.
RUN = {
    "RUN_ID": "{{ run_id }}",
    "DAG_ID": "{{ dag.dag_id }}",
    "DAG_VERSION": "{{ ti.bundle_instance.version or '' }}",
}

DEFAULTS: dict[str, Any] = {
    # A step may be killed at any moment and finishes its work when it is tried again.
    "retries": 10,
    "retry_delay": timedelta(seconds=3),
    "execution_timeout": timedelta(hours=1),
    # Runs that are further on come first: they end before others, whose base then is newer.
    "weight_rule": "upstream",
}

# The param that a DAG has whose steps are kept. A workspace is kept for a week at most.
KEEP_HOURS = Param(
    24,
    type="number",
    minimum=0,
    maximum=7 * 24,
    description="For how many hours what a run's steps ran in is kept for reading",
)

runtime = importlib.import_module(f"runtimes.{os.environ['STEP_RUNTIME']}")

# For a TaskFlow task that shall have a pod of its own where there are pods: `@task(**IN_A_POD)`.
IN_A_POD: dict[str, Any] = {"executor": runtime.EXECUTOR}


# Where Airflow keeps the files of a bundle: as the branch is now, or as one run has them.
PRODUCTION = re.compile(r"/production/(tracking_repo|versions/[0-9a-f]+)/dags$")
PREFIX = "production." if PRODUCTION.search(Path(__file__).parent.as_posix()) else ""


def named(dag_id: str) -> str:
    """The id that a DAG has in Airflow: its own in staging, with `production.` before it there.

    Both branches hold the same files, and of two DAGs of one id Airflow keeps the one it saw last.
    """
    return f"{PREFIX}{dag_id}"


def clock(cron: str) -> CronTriggerTimetable:
    """When a DAG runs, in UTC. A new lab waits for the next time, and makes up for none before."""
    # The minute is for a time that comes while the DAG's file is being read again. With `False`,
    # Airflow would make up for the last time during a tenth of what is between two.
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(minutes=1))


def step(
    task_id: str,
    *arguments: str,
    command: str = COMMAND,
    template: str = TEMPLATE,
    memory: str | None = None,
    keep: bool = False,
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> BaseOperator:
    """The task that runs `command` with these arguments.

    `template` names the PodTemplate that its pod is made of; `memory` is what it may use, in
    Kubernetes' notation, where that is not what the template says; `keep` leaves what the step
    ran in for reading (the DAG has a param `keep_hours` and runs one at a time); `variables` are
    its own, templates of Airflow's, beside those of the run; `options` are the operator's.
    """
    kept = {"KEEP_HOURS": runtimes.KEEP_HOURS} if keep else {}
    task: BaseOperator = runtime.task(
        task_id,
        (command, *arguments),
        {**RUN, **kept, **(variables or {})},
        template=template,
        memory=memory,
        keep=keep,
        **options,
    )
    return task
