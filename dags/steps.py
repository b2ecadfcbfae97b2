"""`step()`: one command of one image, as a task. The same argv wherever it runs.

Where it runs is said by STEP_RUNTIME in Airflow's environment, so no DAG has to ask.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

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

runtime = importlib.import_module(f"runtimes.{os.environ['STEP_RUNTIME']}")

# For a TaskFlow task that shall have a pod of its own where there are pods: `@task(**IN_A_POD)`.
IN_A_POD: dict[str, Any] = {"executor": runtime.EXECUTOR}


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
    ran in for reading; `variables` are its own, templates of Airflow's, beside those of the run;
    `options` are the operator's.
    """
    task: BaseOperator = runtime.task(
        task_id,
        (command, *arguments),
        {**RUN, **(variables or {})},
        template=template,
        memory=memory,
        keep=keep,
        **options,
    )
    return task
