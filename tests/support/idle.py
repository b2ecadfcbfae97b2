"""Which runs are under way, and waiting until none is."""

from __future__ import annotations

from lab.client import runs
from lab.lab import Lab
from lab.wait import NotYet, until

PATIENCE = 300  # seconds


def active(lab: Lab, dag: str) -> list[str]:
    """The ids of the DAG's runs that have not ended."""
    return [run.id for run in lab.runs_of(dag) if run.state not in runs.ENDED]


def await_idle(lab: Lab, dag: str) -> None:
    """No run of the DAG is under way."""

    def idle() -> None:
        if found := active(lab, dag):
            raise NotYet(f"{found} are under way")

    until(idle, what=f"the end of the runs of {dag}", timeout=PATIENCE, interval=0.5)
