"""`step()`: one command of one image as a task, with the same argv on every runtime.

STEP_RUNTIME in Airflow's environment names the runtime, so no DAG has to know it.
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

# Rendered by Airflow for each run. No dates (a run started by the API has none), no conf.
RUN = {
    "RUN_ID": "{{ run_id }}",
    "DAG_ID": "{{ dag.dag_id }}",
    "DAG_VERSION": "{{ ti.bundle_instance.version or '' }}",
}

DEFAULTS: dict[str, Any] = {
    # A step may be killed at any moment, and finishes its work when it is retried.
    "retries": 10,
    "retry_delay": timedelta(seconds=3),
    "execution_timeout": timedelta(hours=1),
    # Runs that are further along go first: they publish before others, which then start from a
    # newer base.
    "weight_rule": "upstream",
}

# The param of a DAG whose steps' pods and workspaces are kept; workspaces for a week at most.
KEEP_HOURS = Param(
    24,
    type="number",
    minimum=0,
    maximum=7 * 24,
    description="How many hours the steps' pods and workspaces are kept for inspection",
)

runtime = importlib.import_module(f"runtimes.{os.environ['STEP_RUNTIME']}")

# For a TaskFlow task that gets a pod of its own where there are pods: `@task(**IN_A_POD)`.
IN_A_POD: dict[str, Any] = {"executor": runtime.EXECUTOR}


# Where Airflow keeps a bundle's files: at the branch's newest commit, or at the commit of one run.
PRODUCTION = re.compile(r"/production/(tracking_repo|versions/[0-9a-f]+)/dags$")
PREFIX = "production." if PRODUCTION.search(Path(__file__).parent.as_posix()) else ""


def named(dag_id: str) -> str:
    """Return the DAG's id in Airflow: as it is in staging, prefixed with `production.` there.

    Both branches hold the same files, and of two DAGs with one id Airflow keeps the one it saw
    last.
    """
    return f"{PREFIX}{dag_id}"


def clock(cron: str) -> CronTriggerTimetable:
    """Return a cron timetable in UTC. A new lab waits for the next time; it never catches up."""
    # The minute is for a time that passes while the DAG's file is being parsed again. With `False`,
    # Airflow would catch up on the last time within a tenth of the interval.
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
    """Return the task that runs `command` with these arguments.

    `template` names the PodTemplate of its pod; `memory` is its memory limit in Kubernetes'
    notation, where that is not the template's; `keep` keeps the step's pod and workspace for
    inspection (the DAG has a param `keep_hours` and runs one at a time); `variables` are its own
    environment variables, templated by Airflow, beside those of the run; `options` are the
    operator's.
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
