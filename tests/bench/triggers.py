"""Seconds from a trigger until the first task of the run that it starts has begun."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from lab.client import runs, s3
from lab.client.git import run_git
from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, wait_until
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


def measure_triggers(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the median of seconds between each kind of trigger and the start of the first task."""
    causes: dict[str, tuple[str, Callable[[Lab], datetime]]] = {
        "the REST API": ("data_pipeline_lab", trigger_by_request),
        "a push to the datasets": ("dataset_pipeline", trigger_by_push),
        "a new object": ("sales_pipeline", trigger_by_object),
        "another DAG's asset": ("sample_etl", trigger_by_asset),
    }
    for what, (dag_id, cause) in causes.items():
        seconds = [measure_delay(lab, dag_id, cause) for _ in range(arguments.rounds)]
        yield Row(f"from {what} to the first task", median(seconds))
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "team-a"
        yield Row("from a pushed DAG until it is live", push_dag(lab, clone), goal="5 s")
        yield Row(
            "from the minute of a cron to the first task",
            measure_delay(lab, "bench_cron", next_minute),
        )
        run_git(lab, "rm", "--quiet", "dags/bench_cron.py", cwd=clone)
        push(lab, clone)


def measure_delay(lab: Lab, dag_id: str, cause: Callable[[Lab], datetime]) -> float:
    """Return the seconds from the cause until the new run's first task began; wait for its end."""
    before = {run.id for run in lab.runs_of(dag_id)}
    since = cause(lab)

    def find_started() -> tuple[Run, datetime]:
        for run in lab.runs_of(dag_id):
            times = [o.began for o in lab.outcomes(run).values() if o.began]
            if run.id not in before and times:
                return run, min(times)
        raise NotYet(f"no run of {dag_id} has begun")

    run, began = wait_until(find_started, what=dag_id, timeout=SECONDS, interval=0.3)
    lab.follow(run)
    return (began - since).total_seconds()


def trigger_by_request(lab: Lab) -> datetime:
    now = datetime.now(UTC)
    lab.trigger("data_pipeline_lab")
    return now


def trigger_by_push(lab: Lab) -> datetime:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "datasets"
        run_git(lab, "clone", "--quiet", lab.git_url, clone, cwd=Path(folder))
        (clone / "NOTES.md").write_text(f"{time.time_ns()}\n", "utf-8")
        return push(lab, clone)


def trigger_by_object(lab: Lab) -> datetime:
    number = time.time_ns()
    row = f"id,amount,city\n{number},250,NYC\n"
    now = datetime.now(UTC)
    key = f"landing/sales/{number}.csv"
    s3.create_client(lab).put_object(Bucket=lab.s3_bucket, Key=key, Body=row.encode())
    return now


def trigger_by_asset(lab: Lab) -> datetime:
    """Run the DAG that updates the asset; return when its last task ended."""
    outcome = lab.outcomes(lab.run("etl_workflow"))["load"]
    assert outcome.ended
    return outcome.ended


def next_minute(lab: Lab) -> datetime:
    """Return when the next run of the cron is due."""
    return datetime.fromtimestamp((time.time() // 60 + 1) * 60, UTC)


def push_dag(lab: Lab, clone: Path) -> float:
    """Return the seconds from the push of a new DAG until Airflow knows it at that commit."""
    url = lab.git_url.replace("datasets.git", "team-a.git")
    run_git(lab, "clone", "--quiet", url, clone, cwd=clone.parent)
    (clone / "dags" / "bench_cron.py").write_text(CRON.format(note=time.time_ns()), "utf-8")
    since = push(lab, clone)
    runs.wait_for_dag(
        lab, "bench_cron", run_git(lab, "rev-parse", "HEAD", cwd=clone).strip(), SECONDS
    )
    return (datetime.now(UTC) - since).total_seconds()


def push(lab: Lab, clone: Path) -> datetime:
    """Push all changes; return when the server had them."""
    run_git(lab, "add", "--all", cwd=clone)
    run_git(lab, "commit", "--quiet", "--message", "bench", cwd=clone)
    run_git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return datetime.now(UTC)
