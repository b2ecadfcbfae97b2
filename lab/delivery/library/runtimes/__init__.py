"""The runtimes of a step, `pod` and `process`: each has `task(...)` and `EXECUTOR`.

`task(task_id, step, **options)` returns the operator of a `Step`, made with Airflow's own
`options`; EXECUTOR is the executor of a TaskFlow task that gets a pod of its own where there are
pods. What an operator runs again, beside its own step, is in `again`, the same for both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_steps.contract import DATASET, variable_name

if TYPE_CHECKING:
    from airflow.sdk import Context

# How many hours a step's pod or workspace is kept; the DAG has a param of that name.
KEEP_HOURS = "{{ params.keep_hours }}"
# What a task does with the run's workspace.
PULL, WORK, PUBLISH = "pull", "work", "publish"
# Commands that find the workspace themselves, and keep others out of it while they work there.
KIT = {"dataset-steps", "model-steps"}

QUANTITY = re.compile(r"([0-9]+|[0-9]*\.[0-9]+)([kMGTPE]|[KMGTPE]i|)")
FACTORS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)},
}


@dataclass(frozen=True)
class Step:
    """One command of one image, and what its task may do with it."""

    argv: tuple[str, ...]
    # Its own environment variables, templated by Airflow, beside those of the workspace.
    variables: Mapping[str, str]
    role: str = WORK
    template: str = "step"  # the PodTemplate of its pod
    image: str | None = None  # where it is not the template's
    memory: str | None = None  # the limit, where it is not the template's
    keep: bool = False  # its pod stays for inspection
    repeatable: bool = False  # it may run again on what it has left
    reruns: bool = False  # of `publish`: the steps before it may run again within its task
    data_sets: Mapping[str, str] = field(default_factory=dict)  # paths of all but the main one
    main: str = DATASET  # the name of the main data set, whose path the lab chooses
    own: str | None = None  # the image of one's own that has the command, by its name in lab.toml

    @property
    def is_the_kit_s(self) -> bool:
        """Whether the command finds the workspace itself."""
        return self.argv[0] in KIT


def workspace_variables(
    step: Step, data_sets: Mapping[str, str], workspace: str, dataset: str
) -> dict[str, str]:
    """Return the variables that tell a step where the run's clone is, and each data set in it.

    `dataset` is the path of the main data set, `data_sets` are those of the others.
    """
    paths = {step.main: dataset, **data_sets}
    places = {variable_name(name): f"{workspace}/{path}" for name, path in paths.items()}
    named = {"DATA_SETS": json.dumps(dict(data_sets)), "DATASET_NAME": step.main}
    return {**named, "WORKSPACE": workspace, **places}


def bytes_from_quantity(quantity: str) -> int:
    """Return the bytes of a `quantity` in Kubernetes' notation, like "256Mi". Raise ValueError."""
    found = QUANTITY.fullmatch(quantity)
    number = float(found[1]) * FACTORS[found[2]] if found else 0
    if number < 1:
        raise ValueError(f"{quantity!r} is no amount of memory: write it as in 256Mi or 1.5Gi")
    return round(number)


def out_of_memory_message(task_id: str, limit: str, what: str) -> str:
    """Return the error message for a step that exceeded its memory, the same on every runtime."""
    return f"OOMKilled: {task_id} needed more than its limit of {limit}; raise {what}"


def memory_setting(context: Context) -> str:
    """Return where the memory limit of a DAG's step is set."""
    return f"memory= in dags/{Path(context['dag'].fileloc).name}"
