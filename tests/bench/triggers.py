"""How long it takes from a cause until the first task of the run that it starts has begun."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from lab.client import runs, s3
from lab.client.git import git
from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, until
from tests.bench.row import Row

SECONDS = 180
CRON = '''"""Once a minute."""
from airflow.sdk import DAG, task

with DAG("bench_cron", schedule="* * * * *", catchup=False):

    @task
    def nothing() -> None:
        print("{note}")

    nothing()
'''


def triggers(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Medians of the seconds between a cause and the first task's beginning."""
    causes: dict[str, tuple[str, Callable[[Lab], datetime]]] = {
        "the REST API": ("data_pipeline_lab", by_request),
        "a push to the datasets": ("dataset_pipeline", by_push),
        "a new object": ("sales_pipeline", by_object),
        "another DAG's asset": ("sample_etl", by_asset),
    }
    for what, (dag_id, cause) in causes.items():
        seconds = [delay(lab, dag_id, cause) for _ in range(arguments.rounds)]
        yield Row(f"from {what} to the first task", median(seconds))
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "team-a"
        yield Row("from a pushed DAG until it is live", push_dag(lab, clone), goal="5 s")
        yield Row("from the minute of a cron to the first task", delay(lab, "bench_cron", minute))
        git(lab, "rm", "--quiet", "dags/bench_cron.py", cwd=clone)
        push(lab, clone)


def delay(lab: Lab, dag_id: str, cause: Callable[[Lab], datetime]) -> float:
    """Seconds from the cause until the first task of the new run began; the run has ended."""
    before = {run.id for run in lab.runs_of(dag_id)}
    since = cause(lab)

    def started() -> tuple[Run, datetime]:
        for run in lab.runs_of(dag_id):
            times = [o.began for o in lab.outcomes(run).values() if o.began]
            if run.id not in before and times:
                return run, min(times)
        raise NotYet(f"no run of {dag_id} has begun")

    run, began = until(started, what=dag_id, timeout=SECONDS, interval=0.3)
    lab.follow(run)
    return (began - since).total_seconds()


def by_request(lab: Lab) -> datetime:
    now = datetime.now(UTC)
    lab.trigger("data_pipeline_lab")
    return now


def by_push(lab: Lab) -> datetime:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "datasets"
        git(lab, "clone", "--quiet", lab.git_url, clone, cwd=Path(folder))
        (clone / "NOTES.md").write_text(f"{time.time_ns()}\n", "utf-8")
        return push(lab, clone)


def by_object(lab: Lab) -> datetime:
    number = time.time_ns()
    row = f"id,amount,city\n{number},250,NYC\n"
    now = datetime.now(UTC)
    key = f"landing/sales/{number}.csv"
    s3.client(lab).put_object(Bucket=lab.s3_bucket, Key=key, Body=row.encode())
    return now


def by_asset(lab: Lab) -> datetime:
    """When the run that updates the asset ended its last task."""
    outcome = lab.outcomes(lab.run("etl_workflow"))["load"]
    assert outcome.ended
    return outcome.ended


def minute(lab: Lab) -> datetime:
    """When the next run of a cron is due."""
    return datetime.fromtimestamp((time.time() // 60 + 1) * 60, UTC)


def push_dag(lab: Lab, clone: Path) -> float:
    """Seconds from the push of a new DAG until Airflow knows it at that commit."""
    url = lab.git_url.replace("datasets.git", "team-a.git")
    git(lab, "clone", "--quiet", url, clone, cwd=clone.parent)
    (clone / "dags" / "bench_cron.py").write_text(CRON.format(note=time.time_ns()), "utf-8")
    since = push(lab, clone)
    runs.await_dag(lab, "bench_cron", git(lab, "rev-parse", "HEAD", cwd=clone).strip(), SECONDS)
    return (datetime.now(UTC) - since).total_seconds()


def push(lab: Lab, clone: Path) -> datetime:
    """All that was changed is on the server; when that was."""
    git(lab, "add", "--all", cwd=clone)
    git(lab, "commit", "--quiet", "--message", "bench", cwd=clone)
    git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return datetime.now(UTC)
