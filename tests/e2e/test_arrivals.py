"""A new object in a bucket prefix: from the put to the run, and deaths in between."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.support.control import Control
from tests.support.landing import ASSET, DAG, PATIENCE, PREFIX, Landing

TRIGGERER = "airflow-triggerer"
PACE = 0.2  # seconds between two files that land


@pytest.fixture
def landing(lab: Lab) -> Landing:
    """Return an empty landing zone."""
    place = Landing(lab)
    place.clear()
    return place


def find_asset(lab: Lab) -> Any:
    """Return Airflow's asset of the landing zone."""
    from airflow_client.client import AssetApi

    with lab.airflow() as client:
        found = AssetApi(client).get_assets(name_pattern=ASSET).assets
    (known,) = [each for each in found if each.name == ASSET]
    return known


def read_watcher_memory(lab: Lab) -> set[str]:
    """Return the keys that the watcher remembers, of which it makes no second event."""
    from airflow_client.client import AssetStateStoreApi

    with lab.airflow() as client:
        found = AssetStateStoreApi(client).list_asset_state_store(find_asset(lab).id)
    values = [entry.value for entry in found.asset_state_store]
    return {key for value in values for key in (getattr(value, "actual_instance", value) or {})}


def await_remembered(lab: Lab, *keys: str) -> None:
    """Wait until the watcher remembers all keys."""

    def require_all() -> None:
        if missing := set(keys) - read_watcher_memory(lab):
            raise NotYet(f"the watcher has yet to remember {missing}")

    wait_until(require_all, what="the memory", timeout=PATIENCE, interval=0.3)


def count_events(lab: Lab) -> Counter[str]:
    """Count the asset's events by key."""
    payloads = [extra.get("payload") or {} for extra in lab.events(ASSET)]
    return Counter(payload["key"] for payload in payloads if "key" in payload)


def test_a_landed_file_starts_a_run_that_names_it_and_loads_it(lab: Lab, landing: Landing) -> None:
    key = landing.put("one", 99, 501)
    run = landing.wait_for_run_of(key)
    lab.follow(run)
    assert run.id.startswith("asset_triggered__")
    (event,) = landing.list_events(key)
    (entry,) = landing.list_objects(key)
    assert event == {"key": key, "etag": entry["ETag"].strip('"'), "size": entry["Size"]}
    assert f"started by the arrival of {key}" in lab.log(run, "extract_sales_data")
    lineage = landing.read_lineage()
    assert lineage["run_id"] == run.id
    assert lineage["sources"] == [{"key": key, "etag": event["etag"], "records": 2}]


def test_only_new_content_is_told_of(lab: Lab, landing: Landing) -> None:
    key = landing.put("same", 1, 2)
    await_remembered(lab, key)
    landing.put("same", 1, 2)
    fence = landing.put("fence", 1)  # once this is known, the other has been checked again
    await_remembered(lab, fence)
    assert len(landing.list_events(key)) == 1
    landing.put("same", 1, 2, 3)
    wait_until(
        lambda: require_two_events(landing, key),
        what="the second event",
        timeout=PATIENCE,
        interval=0.3,
    )
    old, new = landing.list_events(key)
    assert old["etag"] != new["etag"]
    landing.wait_until_loaded(key, fence)


def require_two_events(landing: Landing, key: str) -> None:
    if len(landing.list_events(key)) < 2:
        raise NotYet(f"one event of {key}")


@pytest.mark.variation
def test_files_that_land_together_are_each_told_of_and_all_loaded(
    lab: Lab, landing: Landing
) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda n: landing.put(f"{n:02}", n + 1), range(24)))
    landing.wait_for_events(*keys)
    lineage = landing.wait_until_loaded(*keys)
    assert [source["key"] for source in lineage["sources"]] == sorted(keys)
    assert [count_events(lab)[key] for key in keys] == [1] * len(keys)


@pytest.mark.variation
def test_a_dead_triggerer_loses_and_repeats_nothing(
    lab: Lab, control: Control, landing: Landing
) -> None:
    watcher = [each.trigger_id for each in find_asset(lab).watchers]
    before = landing.put("before", 1)
    await_remembered(lab, before)
    control.kill(TRIGGERER)
    meanwhile = landing.put("meanwhile", 2)
    control.restore()
    after = landing.put("after", 3)
    await_remembered(lab, meanwhile, after)
    fence = landing.put("fence", 4)
    await_remembered(lab, fence)
    assert [count_events(lab)[key] for key in (before, meanwhile, after, fence)] == [1, 1, 1, 1]
    assert [each.trigger_id for each in find_asset(lab).watchers] == watcher
    landing.wait_until_loaded(before, meanwhile, after, fence)


@pytest.mark.long
def test_a_triggerer_that_dies_while_files_land_loses_none(
    lab: Lab, control: Control, landing: Landing
) -> None:
    """A key that had its event but was not yet remembered may get a second one, no other."""
    with ThreadPoolExecutor(1) as pool:
        enough = threading.Event()
        putting = pool.submit(put_files, landing, enough)
        try:
            await_remembered(lab, landing.key("000"))
            kept = read_watcher_memory(lab)
            control.kill(TRIGGERER)
        finally:
            enough.set()
        keys = putting.result()
    control.restore()
    await_remembered(lab, *keys)
    told = count_events(lab)
    assert [key for key in keys if told[key] == 0] == []
    assert [key for key in kept if told[key] != 1] == []
    assert [key for key in keys if told[key] > 2] == []
    landing.wait_until_loaded(*keys)


def put_files(landing: Landing, enough: threading.Event) -> list[str]:
    """Put files one after another until `enough`, then a last one; return their keys."""
    keys = [landing.put("000", 1)]
    while not enough.wait(PACE):
        keys.append(landing.put(f"{len(keys):03}", 1))
    return [*keys, landing.put("last", 1)]


@pytest.mark.variation
def test_what_has_left_the_landing_zone_is_forgotten(lab: Lab, landing: Landing) -> None:
    key = landing.put("short", 1)
    await_remembered(lab, key)
    landing.clear()

    def require_no_memory() -> None:
        if left := read_watcher_memory(lab):
            raise NotYet(f"the watcher remembers {left}")

    wait_until(require_no_memory, what="the memory's end", timeout=PATIENCE, interval=0.3)


@pytest.mark.variation
def test_what_lands_while_the_dag_is_paused_is_told_of_when_it_is_not(
    lab: Lab, control: Control, landing: Landing
) -> None:
    set_paused(lab, True)
    try:
        wait_until(
            lambda: require_watcher(lab, False), what="no watcher", timeout=PATIENCE, interval=0.3
        )
        # The triggerer goes on for a moment with a watcher that the database has no more, and may
        # tell of the file then, and again when the DAG is unpaused: end it.
        control.kill(TRIGGERER)
        control.restore()
        key = landing.put("paused", 1)
        assert landing.list_events(key) == []
    finally:
        set_paused(lab, False)
    wait_until(lambda: require_watcher(lab, True), what="a watcher", timeout=PATIENCE, interval=0.3)
    landing.wait_until_loaded(key)
    assert count_events(lab)[key] == 1


def set_paused(lab: Lab, paused: bool) -> None:
    """Pause or unpause the DAG and have its file parsed, which removes or adds its watcher."""
    from airflow_client.client import DAGApi, DAGParsingApi, DAGPatchBody

    with lab.airflow() as client:
        known = DAGApi(client).patch_dag(DAG, DAGPatchBody(is_paused=paused))
        DAGParsingApi(client).reparse_dag_file(known.file_token)


def require_watcher(lab: Lab, wanted: bool) -> None:
    """Raise NotYet unless the landing zone has a watcher or, if not `wanted`, has none."""
    if bool(find_asset(lab).watchers) != wanted:
        raise NotYet(f"{PREFIX} has {find_asset(lab).watchers or 'no watcher'}")
