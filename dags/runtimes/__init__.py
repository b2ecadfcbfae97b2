"""The runtimes of a step: one module each, with `task(...)` and `EXECUTOR`.

`task(task_id, argv, variables, template=, memory=, keep=, **options)` returns the step's operator,
made with Airflow's own `options`; EXECUTOR is the executor of a TaskFlow task that gets a pod of
its own where there are pods.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context

HOPELESS = 65  # EX_DATAERR: the step's exit code when a retry can't help
# How many hours a step's pod or workspace is kept; the DAG has a param of that name.
KEEP_HOURS = "{{ params.keep_hours }}"

QUANTITY = re.compile(r"([0-9]+|[0-9]*\.[0-9]+)([kMGTPE]|[KMGTPE]i|)")
FACTORS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)},
}


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
