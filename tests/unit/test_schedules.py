"""When the scheduler starts the DAGs that run by the clock, and which runs it makes up for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.dag_runs import DAILY_HOURS
from tests.support.dag_tasks import delivered_dags, with_plugins

SUNDAY = datetime(2026, 1, 4, tzinfo=UTC)
# A time at which each is due, and the period until the next.
DUE = {
    "dataset_pipeline": (SUNDAY.replace(hour=2), timedelta(days=1)),
    "ml_training_pipeline": (SUNDAY.replace(hour=2), timedelta(weeks=1)),
    "sales_pipeline": (SUNDAY.replace(hour=6), timedelta(days=1)),
    "critical_pipeline": (SUNDAY.replace(hour=8), timedelta(hours=2)),
}


@pytest.fixture(scope="module")
def timetables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield the timetable of each DAG that runs by the clock, as the scheduler gets it."""
    variables = {
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "0",  # it would replace pytest's alarm
        "STEP_RUNTIME": "process",
    }
    with with_plugins(tmp_path_factory, **variables):
        from airflow.dag_processing.dagbag import BundleDagBag
        from airflow.serialization.encoders import coerce_to_core_timetable

        folder = delivered_dags()
        bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="any")
        assert not bag.import_errors
        known = {name: coerce_to_core_timetable(dag.timetable) for name, dag in bag.dags.items()}
        yield {name: timetable for name, timetable in known.items() if next_run(timetable, None)}


def next_run(timetable: Any, last: datetime | None) -> Any:
    """Return the next run by the clock after the `last` one, or None if only events start runs."""
    from airflow._shared.timezones.timezone import coerce_datetime
    from airflow.timetables.base import DataInterval, TimeRestriction

    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    interval = last and DataInterval.exact(coerce_datetime(last))
    return timetable.next_dagrun_info(
        last_automated_data_interval=interval, restriction=restriction
    )


def set_now(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: now)


def test_every_schedule_is_known_here(timetables: dict[str, Any]) -> None:
    assert timetables.keys() == DUE.keys()


def test_end_to_end_tests_know_the_hours_of_daily_runs() -> None:
    daily = {name: due.hour for name, (due, period) in DUE.items() if period == timedelta(days=1)}
    assert daily == DAILY_HOURS


@pytest.mark.parametrize("name", DUE)
def test_a_new_lab_waits_for_the_next_time(
    timetables: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, period = DUE[name]
    set_now(monkeypatch, due + timedelta(minutes=2))
    assert next_run(timetables[name], None).run_after == due + period


@pytest.mark.parametrize("name", DUE)
def test_a_time_that_comes_while_a_dag_is_read_for_the_first_time_is_not_missed(
    timetables: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, _ = DUE[name]
    set_now(monkeypatch, due + timedelta(seconds=30))
    assert next_run(timetables[name], None).run_after == due


@pytest.mark.parametrize("name", DUE)
def test_a_lab_that_was_down_makes_up_for_the_last_time_only(
    timetables: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, period = DUE[name]
    set_now(monkeypatch, due + timedelta(minutes=30))
    assert next_run(timetables[name], due - 3 * period).run_after == due
    assert next_run(timetables[name], due).run_after == due + period
