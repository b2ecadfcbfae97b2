"""The deadline of one task: when people are notified, when not, and how the watch survives."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent
from tenacity import wait_none

TREE = Path(__file__).resolve().parents[2]
RUN = SimpleNamespace(dag_id="a_dag", run_id="a run", task_id="work_deadline")
Told = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Yield the plugin `lab_deadlines`, imported as Airflow's processes import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.syspath_prepend(str(TREE / "manifests" / "base" / "plugins"))
        yield importlib.import_module("lab_deadlines")


@pytest.fixture
def told(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Return the list of the calls of `tell`; polls and retries don't wait."""
    found: Told = []
    monkeypatch.setattr(module, "tell", lambda *arguments: found.append(arguments))
    monkeypatch.setattr(module, "POLL", 0)
    monkeypatch.setattr(module, "PAUSES", wait_none())
    return found


def create_watch(module: ModuleType, states: list[dict[str, str | None]], seconds: float) -> Any:
    """Return a watch of `work` in a run that begins now; each poll reads the next of `states`."""
    began = datetime.now(UTC).isoformat()
    made = module.Watch("work", began, seconds, ["owner"])
    again = module.Watch(**made.serialize()[1])  # a triggerer deserializes it
    again.task_instance = RUN
    looks = iter(states)

    async def read_states() -> dict[str, str | None]:
        return next(looks)

    again.read_states = read_states
    return again


def collect_events(trigger: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [event async for event in trigger.run()]

    return asyncio.run(collect())


def has_success_event(trigger: Any) -> bool:
    (event,) = collect_events(trigger)
    return isinstance(event, TaskSuccessEvent)


@pytest.mark.parametrize("end", ["success", "failed", "skipped", "upstream_failed", "removed"])
def test_a_task_that_ends_in_time_is_left_alone(module: ModuleType, told: Told, end: str) -> None:
    states: list[dict[str, str | None]] = [{}, {"work": None}, {"work": "running"}, {"work": end}]
    assert has_success_event(create_watch(module, states, seconds=60))
    assert told == []


@pytest.mark.parametrize("state", [None, "queued", "running", "up_for_retry", "deferred"])
def test_people_are_told_once_when_it_has_not(
    module: ModuleType, told: Told, state: str | None
) -> None:
    assert has_success_event(create_watch(module, [{"work": state}], seconds=0))
    ((dag_id, run_id, who, subject, text),) = told
    assert (dag_id, run_id, who) == ("a_dag", "a run", ["owner"])
    assert subject == "a_dag: work is late"
    assert "should have ended 0 s after its run began" in text


def test_a_task_that_is_unknown_yet_is_late_too(module: ModuleType, told: Told) -> None:
    assert has_success_event(create_watch(module, [{}], seconds=0))
    assert len(told) == 1


def test_all_instances_of_a_mapped_task_must_have_ended(module: ModuleType, told: Told) -> None:
    one: dict[str, str | None] = {"work_0": "success", "work_1": "running"}
    assert has_success_event(create_watch(module, [one, {**one, "work_1": "success"}], seconds=60))
    assert told == []
    assert has_success_event(create_watch(module, [one], seconds=0))
    assert len(told) == 1


def test_it_counts_from_the_runs_start(module: ModuleType, told: Told) -> None:
    trigger = create_watch(module, [{"work": "running"}], seconds=60)
    trigger.began = (datetime.now(UTC) - timedelta(seconds=61)).isoformat()
    assert has_success_event(trigger)
    assert len(told) == 1


def test_a_bucket_that_refuses_is_asked_again(
    module: ModuleType, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([ConnectionError("S3 is away"), TimeoutError("still"), None])

    def tell(*arguments: Any) -> None:
        if error := next(answers):
            raise error
        told.append(arguments)

    monkeypatch.setattr(module, "tell", tell)
    assert has_success_event(create_watch(module, [{"work": "running"}], seconds=0))
    assert len(told) == 1


def test_nobody_to_be_told_in_an_hour_is_an_error(
    module: ModuleType, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(*_: Any) -> None:
        raise ConnectionError("S3 is away")

    monkeypatch.setattr(module, "tell", tell)
    monkeypatch.setattr(module, "PATIENCE", 0)
    with pytest.raises(ConnectionError, match="S3 is away"):
        collect_events(create_watch(module, [{"work": "running"}], seconds=0))


def test_a_late_run_is_told_of_with_its_deadline(module: ModuleType, told: Told) -> None:
    context = {
        "dag_run": {"dag_id": "a_dag", "dag_run_id": "a run"},
        "deadline": {"id": "1", "deadline_time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
    }
    asyncio.run(module.run_is_late(recipients=["owner", "boss"], context=context))
    ((dag_id, run_id, who, subject, text),) = told
    assert (dag_id, run_id, who) == ("a_dag", "a run", ["owner", "boss"])
    assert subject == "a_dag: the run is late"
    assert "by 2026-01-02 03:04:05+00:00" in text


def test_the_deadline_is_a_task_that_needs_no_worker(module: ModuleType) -> None:
    from airflow.sdk import DAG, task
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("a_dag", schedule=None) as dag:

        @task
        def work() -> None:
            """Do nothing."""

        module.deadline(work(), within=timedelta(minutes=30), tell=["owner"])
    found = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("work_deadline")
    assert found.start_from_trigger
    assert not found.upstream_task_ids | found.downstream_task_ids
    assert getattr(module, found.start_trigger_args.trigger_cls.split(".")[1]) is module.Watch
    arguments = dag.get_task("work_deadline").start_trigger_args.trigger_kwargs
    trigger = module.Watch(**arguments)
    assert (trigger.watched, trigger.seconds, trigger.recipients) == ("work", 1800, ["owner"])
