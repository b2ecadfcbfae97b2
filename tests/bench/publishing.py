"""DAGs that only the measurements have: pushed for as long as they last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.lab import Lab
from lab.wait import NotYet, wait_until

SECONDS = 180


@contextmanager
def publishing_dag(lab: Lab, repository: str, dag_id: str, text: str) -> Iterator[float]:
    """Push a DAG, wait until it is live and yield the seconds of that; remove it afterwards."""
    with lab.clone(repository) as clone:
        file = clone / "dags" / f"{dag_id}.py"
        file.write_text(text, "utf-8")
        commit = push(lab, clone)
        began = time.monotonic()
        try:
            lab.wait_for_dag(dag_id, commit, SECONDS)
            yield time.monotonic() - began
        finally:
            file.unlink()
            push(lab, clone)
            gone = f"the end of {dag_id}"
            wait_until(lambda: require_no_dag(lab, dag_id), what=gone, timeout=SECONDS)


def push(lab: Lab, clone: Path) -> str:
    """Push all changes of a clone; return their commit once the server has it."""
    lab.git("add", "--all", cwd=clone)
    lab.git("commit", "--quiet", "--message", "measure", cwd=clone)
    lab.git("push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return lab.git("rev-parse", "HEAD", cwd=clone).strip()


def require_no_dag(lab: Lab, dag_id: str) -> None:
    """Raise NotYet while Airflow still runs the DAG."""
    if lab.dag_version(dag_id):
        raise NotYet(f"Airflow still has {dag_id}")
