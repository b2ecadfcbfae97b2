"""The runs of DAGs: which are under way, which a test asked for, when the clock starts some."""

from __future__ import annotations

from collections.abc import Iterable

from lab.lab import Lab
from lab.model import Version
from lab.wait import NotYet, wait_until

PATIENCE = 300  # seconds
DAILY_HOURS = {"dataset_pipeline": 2, "sales_pipeline": 6}  # UTC, of the DAGs that run each day


def list_active_runs(lab: Lab, dag: str) -> list[str]:
    """List the ids of the DAG's runs that have not ended."""
    return [run.id for run in lab.runs_of(dag) if not run.has_ended]


def wait_until_idle(lab: Lab, dag: str) -> None:
    """Wait until no run of the DAG is under way."""

    def require_idle() -> None:
        if found := list_active_runs(lab, dag):
            raise NotYet(f"{found} are under way")

    wait_until(require_idle, what=f"the end of the runs of {dag}", timeout=PATIENCE, interval=0.5)


def requested_run_ids(versions: Iterable[Version]) -> list[str]:
    """List the ids of the runs that made these versions, sorted, without scheduled runs."""
    found = [version.trailers["Run-Id"] for version in versions]
    return sorted(name for name in found if not name.startswith("scheduled__"))
