"""Seconds from a trigger until the first task of the run that it starts has begun."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from statistics import median

from lab.config import Config
from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, wait_until
from tests.bench.publishing import SECONDS, publishing_dag, push
from tests.bench.row import Row

CRON = "bench_cron"
# Each two seconds: Airflow's cron has a sixth field.
CRON_DAG = f'''"""Each two seconds."""
from airflow.sdk import DAG, task

with DAG("{CRON}", schedule="* * * * * */2", catchup=False):

    @task
    def nothing() -> None:
        print("nothing")

    nothing()
'''


def measure_triggers(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
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
    with publishing_dag(lab, "team-a", CRON, CRON_DAG) as seconds_to_live:
        yield Row("from a pushed DAG until it is live", seconds_to_live, goal="5 s")
        delays = measure_cron_delays(lab, arguments.rounds)
        yield Row("from the time of a cron to the first task", median(delays))


def measure_delay(lab: Lab, dag_id: str, cause: Callable[[Lab], datetime]) -> float:
    """Return the seconds from the cause until the new run's first task began; wait for its end."""
    before = {run.id for run in lab.runs_of(dag_id)}
    since = cause(lab)

    def find_started() -> tuple[Run, datetime]:
        for run in lab.runs_of(dag_id):
            if run.id not in before and (began := find_begin(lab, run)):
                return run, began
        raise NotYet(f"no run of {dag_id} has begun")

    run, began = wait_until(find_started, what=dag_id, timeout=SECONDS, interval=0.3)
    lab.follow(run)
    return (began - since).total_seconds()


def find_begin(lab: Lab, run: Run) -> datetime | None:
    """Return when the run's first task began, or None when none has."""
    return min((o.began for o in lab.outcomes(run).values() if o.began), default=None)


def trigger_by_request(lab: Lab) -> datetime:
    now = datetime.now(UTC)
    lab.trigger("data_pipeline_lab")
    return now


def trigger_by_push(lab: Lab) -> datetime:
    """Push to the datasets as a person does; return when the server had it."""
    with lab.clone() as clone:
        (clone / "NOTES.md").write_text(f"{time.time_ns()}\n", "utf-8")
        push(lab, clone)
        return datetime.now(UTC)


def trigger_by_object(lab: Lab) -> datetime:
    number = time.time_ns()
    now = datetime.now(UTC)
    lab.put_object(f"landing/sales/{number}.csv", f"id,amount,city\n{number},250,NYC\n".encode())
    return now


def trigger_by_asset(lab: Lab) -> datetime:
    """Run the DAG that updates the asset; return when its last task ended."""
    outcome = lab.outcomes(lab.run("etl_workflow"))["load"]
    assert outcome.ended
    return outcome.ended


def measure_cron_delays(lab: Lab, rounds: int) -> list[float]:
    """Return the seconds between the time of each of the next runs and its first task.

    A DAG that is new has a run at once, for the last time before: that one waited for nobody.
    """
    live = datetime.now(UTC)

    def find_delays() -> list[float]:
        due = list_due_runs(lab, live)
        begun = [(began - at).total_seconds() for run, at in due if (began := find_begin(lab, run))]
        if len(begun) < rounds:
            raise NotYet(f"{len(begun)} of {rounds} runs have begun")
        return begun

    patience = SECONDS + 2 * rounds
    return wait_until(find_delays, what=CRON, timeout=patience, interval=0.5)


def list_due_runs(lab: Lab, since: datetime) -> list[tuple[Run, datetime]]:
    """List the runs of the cron that were due after a time, and when each was."""
    from airflow_client.client import DagRunApi

    with lab.airflow() as client:
        found = DagRunApi(client).get_dag_runs(CRON, run_after_gte=since).dag_runs
    return [(Run(r.dag_run_id, CRON, str(r.state.value), None), r.run_after) for r in found]
