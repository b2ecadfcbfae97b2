"""List a DAG's unfinished runs, and wait until there are none."""

from __future__ import annotations

from lab.lab import Lab
from lab.wait import NotYet, wait_until

PATIENCE = 300  # seconds


def list_active_runs(lab: Lab, dag: str) -> list[str]:
    """List the ids of the DAG's runs that have not ended."""
    return [run.id for run in lab.runs_of(dag) if not run.has_ended]


def await_idle(lab: Lab, dag: str) -> None:
    """Wait until no run of the DAG is under way."""

    def require_idle() -> None:
        if found := list_active_runs(lab, dag):
            raise NotYet(f"{found} are under way")

    wait_until(require_idle, what=f"the end of the runs of {dag}", timeout=PATIENCE, interval=0.5)
