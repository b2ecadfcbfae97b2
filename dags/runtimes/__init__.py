"""Where a step can run: one module each, with `task(...)` and `EXECUTOR`.

`task(task_id, argv, variables, template=, memory=, keep=, **options)` is the step's operator, made
with Airflow's own `options`; EXECUTOR is what runs a TaskFlow task that shall have a pod of its
own, where there are pods.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context

HOPELESS = 65  # EX_DATAERR: the step says that trying again won't help
# For how many hours what a step ran in is kept, where it is: the DAG has such a param.
KEEP_HOURS = "{{ params.keep_hours }}"

QUANTITY = re.compile(r"([0-9]+|[0-9]*\.[0-9]+)([kMGTPE]|[KMGTPE]i|)")
FACTORS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)},
}


def bytes_of(quantity: str) -> int:
    """How many bytes `quantity` is, in Kubernetes' notation: "256Mi". Raises ValueError."""
    found = QUANTITY.fullmatch(quantity)
    number = float(found[1]) * FACTORS[found[2]] if found else 0
    if number < 1:
        raise ValueError(f"{quantity!r} is no amount of memory: write it as in 256Mi or 1.5Gi")
    return round(number)


def out_of_memory(task_id: str, limit: str, what: str) -> str:
    """What is said of a step that was killed for its memory, the same wherever it ran."""
    return f"OOMKilled: {task_id} needed more than its limit of {limit}; raise {what}"


def memory_of(context: Context) -> str:
    """Where the memory of a DAG's own steps is said."""
    return f"memory= in dags/{Path(context['dag'].fileloc).name}"
