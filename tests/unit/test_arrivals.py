"""The watcher of new objects in Airflow's database: one row, however often DAGs are parsed."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.dag_tasks import with_plugins


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Yield the module `assets`, imported as the DAG processor imports it."""
    with with_plugins(tmp_path_factory, STEP_RUNTIME="process"):
        yield importlib.import_module("assets")


def test_a_parsed_watcher_is_the_one_that_the_database_has(assets: ModuleType) -> None:
    """`add_asset_trigger_references` compares hashes and makes a new row for another one."""
    from airflow.models.trigger import Trigger
    from airflow.serialization.encoders import encode_trigger
    from airflow.triggers.base import BaseEventTrigger

    (watcher,) = assets.LANDED_SALES.watchers
    sent = json.loads(json.dumps(encode_trigger(watcher.trigger)))  # as a parser sends it
    parsed = encode_trigger(sent)
    row = Trigger(classpath=parsed["classpath"], kwargs=parsed["kwargs"])
    assert BaseEventTrigger.hash(row.classpath, row.kwargs) == BaseEventTrigger.hash(
        parsed["classpath"], parsed["kwargs"]
    )


def test_the_triggerer_runs_what_the_dag_has_asked_for(assets: ModuleType) -> None:
    from airflow._shared.module_loading import import_string

    (watcher,) = assets.LANDED_SALES.watchers
    classpath, kwargs = watcher.trigger.serialize()
    again = import_string(classpath)(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (classpath, kwargs)
    assert kwargs["asset"] == assets.LANDED_SALES.name


def test_two_watchers_never_share_a_stream(assets: ModuleType) -> None:
    """A watcher that replaces another gets the events that were pending when the other ended."""
    new_objects = importlib.import_module("lab_arrivals").NewObjects
    old, new = new_objects("a", "b/"), new_objects("a", "b/")
    old.trigger_id, new.trigger_id = 1, 2
    assert old.shared_stream_key() != new.shared_stream_key()


class Store(dict[str, Any]):
    """An asset state store."""

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self[key] = dict(value)


def test_what_airflow_could_not_store_is_told_again(
    assets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

    lab_arrivals = importlib.import_module("lab_arrivals")
    monkeypatch.setattr(lab_arrivals, "SETTLE_SECONDS", 0)
    stored, failed = (lab_arrivals.Object(name, "etag", 1) for name in "ab")

    async def run_scenario() -> tuple[Any, Any]:
        store = Store()
        arrivals = lab_arrivals.Arrivals(lambda: [stored, failed], lab_arrivals.Memory(store), 1.0)
        stream = arrivals.open_stream()
        assert [(await anext(stream))[0] for _ in "ab"] == [stored, failed]
        good, bad = AdvanceOutcome(acked=1, failed=0), AdvanceOutcome(acked=0, failed=1)
        await arrivals.advance([AdvanceItem(stored, good), AdvanceItem(failed, bad)])
        return store, await arrivals.find_new_objects()

    store, again = asyncio.run(run_scenario())
    assert [entry for shard in store.values() for entry in shard.items()] == [("a", "etag")]
    assert again == [failed]
