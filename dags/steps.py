"""`step()`: one command of one image, as a task. The same argv wherever it runs.

Where it runs is said by STEP_RUNTIME in Airflow's environment, so no DAG has to ask.
"""

from __future__ import annotations

import importlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

COMMAND = "dataset-steps"

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


def step(task_id: str, *arguments: str) -> BaseOperator:
    """The task that runs `dataset-steps` with these arguments."""
    runtime = importlib.import_module(f"runtimes.{os.environ['STEP_RUNTIME']}")
    task: BaseOperator = runtime.task(task_id, (COMMAND, *arguments), RUN)
    return task
