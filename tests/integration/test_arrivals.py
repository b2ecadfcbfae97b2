"""New objects as events: Airflow's own trigger runner, a real S3 server, and kills at any moment.

The test plays only the supervisor: it decides when an event is in the database, and it keeps the
asset's state.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec

import pytest

from lab import layout
from lab.backends.embedded.services import seaweedfs
from tests.support.stores import Stores, md5_of

TREE = Path(__file__).resolve().parents[2]
PREFIX, ASSET = "landing/test/", "landed_test"
PAUSE = 0.05  # seconds between two looks of the watcher
DEADLINE = 60
TRIGGER = 7  # any number
FAILED = -1  # recorded for a look that failed

P = ParamSpec("P")


def run_in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


def etag(content: str) -> str:
    return md5_of(content.encode())


@pytest.fixture(scope="module")
def looks() -> list[int]:
    """Return the list to which each look of the watcher adds how many objects it has seen."""
    return []


@pytest.fixture(scope="module")
def arrivals(
    stores: Stores, looks: list[int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModuleType]:
    """Yield the plugin as a triggerer imports it, with the stores' contract."""
    contract = tmp_path_factory.mktemp("contract") / "steps.json"
    contract.write_text(json.dumps(stores.site.step_environment), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("STEP_ENVIRONMENT_FILE", str(contract))
        patch.syspath_prepend(str(TREE / "manifests" / "base" / "plugins"))
        module = importlib.import_module("lab_arrivals")
        patch.setattr(module, "SETTLE_SECONDS", 0.2)
        patch.setattr(
            module.Prefix, "list_objects", record_looks(module.Prefix.list_objects, looks)
        )
        yield module


def record_looks(look: Callable[[Any], list[Any]], looks: list[int]) -> Callable[[Any], list[Any]]:
    """Wrap `look` to add to `looks` how many objects it has found, or FAILED."""

    def look_and_record(prefix: Any) -> list[Any]:
        try:
            found = look(prefix)
        except Exception:
            looks.append(FAILED)
            raise
        looks.append(len(found))
        return found

    return look_and_record


@dataclass(frozen=True)
class Landing:
    """The watched prefix."""

    stores: Stores

    def put(self, name: str, content: str) -> None:
        place = {"Bucket": layout.BUCKET, "Key": PREFIX + name}
        self.stores.client.put_object(**place, Body=content.encode())

    def delete(self, name: str) -> None:
        self.stores.client.delete_object(Bucket=layout.BUCKET, Key=PREFIX + name)

    def clear(self) -> None:
        found = self.stores.client.list_objects_v2(Bucket=layout.BUCKET, Prefix=PREFIX)
        for entry in found.get("Contents", []):
            self.delete(entry["Key"].removeprefix(PREFIX))


@pytest.fixture
def landing(stores: Stores) -> Iterator[Landing]:
    """Yield the prefix, empty."""
    place = Landing(stores)
    place.clear()
    yield place
    stores.start()
    place.clear()


@dataclass
class Database:
    """What outlives a triggerer: the events, and the asset's state."""

    events: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    down: bool = False
    refusals: int = 0  # how many requests came while it was down

    @property
    def names(self) -> list[str]:
        """The names of the objects in the events, in the order of the events."""
        return [event["key"].removeprefix(PREFIX) for event in self.events]

    @property
    def remembered(self) -> dict[str, str]:
        """The ETag of each name in the asset's state."""
        shards = [shard.items() for shard in self.state.values()]
        return {key.removeprefix(PREFIX): etag for shard in shards for key, etag in shard}

    def answer(self, message: Any) -> Any:
        """Answer a request to read or change the asset's state as the supervisor would."""
        from airflow.sdk.execution_time import comms

        if self.down:
            self.refusals += 1
            raise OSError("the database is down")
        assert message.name == ASSET
        if isinstance(message, comms.SetAssetStateStoreByName):
            self.state[message.key] = json.loads(json.dumps(message.value))
            return comms.OKResponse(ok=True)
        if message.key not in self.state:
            return comms.ErrorResponse(error=comms.ErrorType.ASSET_STORE_NOT_FOUND)
        return comms.AssetStateStoreResult(value=self.state[message.key])


@dataclass
class Line:
    """The line to the supervisor; once it is cut, no answer comes."""

    database: Database
    cut: bool = False

    async def asend(self, message: Any) -> Any:
        if self.cut:
            await asyncio.Event().wait()
        return self.database.answer(message)


@dataclass
class Triggerer:
    """One life of a triggerer that runs the watcher."""

    database: Database
    runner: Any
    task: asyncio.Task[None]
    looks: list[int]
    dismissed: bool = False

    @property
    def has_event(self) -> bool:
        """Whether it has an event to be stored."""
        return bool(self.runner.events)

    def store_events(self) -> list[int]:
        """Store its events in the database and return the numbers to confirm."""
        entries = self.drop_events()
        self.database.events += [entry.event.payload for entry in entries]
        return [entry.persist_seq for entry in entries]

    def drop_events(self) -> list[Any]:
        """Take its events, which are nowhere else, and return them."""
        entries = list(self.runner.events)
        self.runner.events.clear()
        return entries

    def confirm(self, numbers: list[int]) -> None:
        """Confirm that the events of these numbers are in the database."""
        self.runner._shared_streams.confirm_persisted(numbers)

    async def dismiss(self) -> None:
        """Cancel the watcher, as Airflow does when it no longer has the trigger."""
        self.dismissed = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def supervise(self) -> None:
        """Do the supervisor's work for ever."""
        while True:
            self.confirm(self.store_events())
            await asyncio.sleep(PAUSE)

    async def await_looks(self, times: int = 3) -> None:
        """Wait until the watcher has looked at the prefix this many times more."""
        goal = len(self.looks) + times
        await wait_until(lambda: len(self.looks) >= goal)


@dataclass(frozen=True)
class Lives:
    """A factory of triggerers on a database, one life after another."""

    module: ModuleType
    looks: list[int]
    monkeypatch: pytest.MonkeyPatch

    @asynccontextmanager
    async def running_alone(self, database: Database) -> AsyncIterator[Triggerer]:
        """Run a triggerer and kill it at the block's end: nothing it does afterwards has an effect.

        Its supervisor does only what the test says.
        """
        from airflow.jobs.triggerer_job_runner import TriggerRunner
        from airflow.sdk.execution_time import task_runner

        line = Line(database)
        self.monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", line, raising=False)
        trigger = self.module.NewObjects(ASSET, PREFIX, ".csv", PAUSE)
        trigger.trigger_id = TRIGGER
        runner: Any = TriggerRunner()
        runner.triggers[TRIGGER] = {"name": "watcher", "events": 0}
        task = asyncio.create_task(runner.run_trigger(TRIGGER, trigger))
        alive = Triggerer(database, runner, task, self.looks)
        try:
            yield alive
            assert alive.dismissed or not task.done(), "the watcher has died"
        finally:
            line.cut = True
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def running_supervised(self, database: Database) -> AsyncIterator[Triggerer]:
        """Run a triggerer whose supervisor works; kill both at the block's end."""
        async with self.running_alone(database) as alive:
            serving = asyncio.create_task(alive.supervise())
            try:
                yield alive
            finally:
                serving.cancel()


@pytest.fixture
def lives(arrivals: ModuleType, looks: list[int], monkeypatch: pytest.MonkeyPatch) -> Lives:
    return Lives(arrivals, looks, monkeypatch)


# --- Which objects become events ----------------------------------------------------------------


@run_in_loop
async def test_each_new_object_is_told_of_once_and_by_name(lives: Lives, landing: Landing) -> None:
    database = Database()
    async with lives.running_supervised(database) as alive:
        landing.put("a b,ü.csv", "one")
        await wait_until(lambda: database.remembered)
        landing.put("b.csv", "three")
        landing.put("b.txt", "not asked for")
        landing.put("folder.csv/", "")
        await wait_until(lambda: len(database.remembered) == 2)
        await alive.await_looks()
    first, second = database.events
    assert first == {"key": f"{PREFIX}a b,ü.csv", "etag": etag("one"), "size": 3}
    assert second == {"key": f"{PREFIX}b.csv", "etag": etag("three"), "size": 5}
    assert database.remembered == {"a b,ü.csv": etag("one"), "b.csv": etag("three")}


@run_in_loop
async def test_new_content_under_an_old_key_is_new_and_the_same_content_is_not(
    lives: Lives, landing: Landing
) -> None:
    database = Database()
    async with lives.running_supervised(database) as alive:
        landing.put("a.csv", "one")
        await wait_until(lambda: database.remembered)
        landing.put("a.csv", "one")
        await alive.await_looks()
        landing.put("a.csv", "two")
        await wait_until(lambda: database.remembered["a.csv"] == etag("two"))
        landing.put("a.csv", "one")
        await wait_until(lambda: database.remembered["a.csv"] == etag("one"))
    told = [event["etag"] for event in database.events]
    assert told == [etag("one"), etag("two"), etag("one")]


@run_in_loop
async def test_what_was_there_before_the_watcher_is_new_and_comes_a_few_at_a_time(
    lives: Lives, landing: Landing, arrivals: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "AT_ONCE", 7)
    names = [f"{number:02}.csv" for number in range(30)]
    for name in names:
        landing.put(name, name)
    database = Database()
    async with lives.running_alone(database) as alive:
        while len(database.remembered) < len(names):
            await alive.await_looks(2)
            numbers = alive.store_events()
            assert len(numbers) <= 7
            alive.confirm(numbers)
    assert database.names == names


@run_in_loop
async def test_what_has_left_the_prefix_is_forgotten_and_new_when_it_comes_again(
    lives: Lives, landing: Landing
) -> None:
    database = Database()
    async with lives.running_supervised(database):
        landing.put("a.csv", "one")
        await wait_until(lambda: database.remembered)
        landing.delete("a.csv")
        await wait_until(lambda: not database.remembered)
        landing.put("a.csv", "one")
        await wait_until(lambda: database.remembered)
    assert database.names == ["a.csv", "a.csv"]


# --- Kills --------------------------------------------------------------------------------------


@run_in_loop
async def test_after_a_restart_only_what_arrived_meanwhile_is_told(
    lives: Lives, landing: Landing
) -> None:
    database = Database()
    async with lives.running_supervised(database):
        landing.put("before.csv", "1")
        landing.put("changed.csv", "1")
        await wait_until(lambda: len(database.remembered) == 2)
    told = sorted(database.names)
    landing.put("changed.csv", "2")
    landing.put("while-down.csv", "1")
    async with lives.running_supervised(database) as alive:
        await wait_until(lambda: len(database.remembered) == 3)
        await alive.await_looks()
    assert (told, database.names[2:]) == (
        ["before.csv", "changed.csv"],
        ["changed.csv", "while-down.csv"],
    )


@run_in_loop
async def test_killed_before_the_event_is_stored_it_is_told_again(
    lives: Lives, landing: Landing
) -> None:
    landing.put("a.csv", "one")
    database = Database()
    async with lives.running_alone(database) as alive:
        await wait_until(lambda: alive.has_event)
    assert not database.remembered
    async with lives.running_supervised(database):
        await wait_until(lambda: database.remembered)
    assert database.names == ["a.csv"]


@pytest.mark.parametrize("confirmed", [False, True])
@run_in_loop
async def test_killed_when_the_event_is_stored_but_not_remembered_it_is_told_twice(
    lives: Lives, landing: Landing, confirmed: bool
) -> None:
    """Twice is better than never: no transaction covers both the event and the asset's state."""
    landing.put("a.csv", "one")
    database = Database()
    async with lives.running_alone(database) as alive:
        await wait_until(lambda: alive.has_event)
        numbers = alive.store_events()
        if confirmed:
            alive.confirm(numbers)
    assert not database.remembered
    async with lives.running_supervised(database) as alive:
        await wait_until(lambda: database.remembered)
        await alive.await_looks()
    assert database.names == ["a.csv", "a.csv"]


@run_in_loop
async def test_an_event_that_airflow_drops_with_its_watcher_is_told_by_the_next_watcher(
    lives: Lives, landing: Landing
) -> None:
    """A paused DAG loses its watcher; Airflow then confirms events that it has not stored."""
    landing.put("a.csv", "one")
    database = Database()
    async with lives.running_alone(database) as alive:
        await wait_until(lambda: alive.has_event)
        alive.confirm([entry.persist_seq for entry in alive.drop_events()])
        await alive.dismiss()
        assert not database.remembered
    async with lives.running_supervised(database):
        await wait_until(lambda: database.remembered)
    assert database.names == ["a.csv"]


# --- Servers that do not answer -----------------------------------------------------------------


@run_in_loop
async def test_the_watcher_outlives_the_s3_server_and_says_once_that_it_is_gone(
    lives: Lives, landing: Landing, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lab_arrivals")
    database = Database()
    async with lives.running_supervised(database) as alive:
        landing.put("a.csv", "one")
        await wait_until(lambda: database.remembered)
        stores.kill(seaweedfs.NAME)
        await wait_until(lambda: alive.looks[-2:] == [FAILED, FAILED])
        stores.start()
        landing.put("b.csv", "two")
        await wait_until(lambda: len(database.remembered) == 2)
    assert database.names == ["a.csv", "b.csv"]
    gone, back = [r.getMessage() for r in caplog.records if r.name == "lab_arrivals"]
    assert gone.startswith("the watcher will try again: EndpointConnectionError")
    assert back.startswith("the watcher has an answer again")


@run_in_loop
async def test_the_watcher_outlives_an_s3_server_that_refuses_it(
    lives: Lives, landing: Landing, arrivals: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is wrong, then right: the watcher reads the contract again."""
    known = dict(arrivals.lab_bucket.contract())
    wrong = {**known, "AWS_SECRET_ACCESS_KEY": "wrong"}
    landing.put("a.csv", "one")
    database = Database()
    monkeypatch.setattr(arrivals.lab_bucket, "contract", lambda: wrong)
    async with lives.running_supervised(database) as alive:
        await wait_until(lambda: alive.looks[-2:] == [FAILED, FAILED])
        monkeypatch.setattr(arrivals.lab_bucket, "contract", lambda: known)
        await wait_until(lambda: database.remembered)
    assert database.names == ["a.csv"]


@run_in_loop
async def test_the_watcher_outlives_a_database_that_does_not_answer(
    lives: Lives, landing: Landing
) -> None:
    landing.put("a.csv", "one")
    database = Database(down=True)
    async with lives.running_alone(database) as alive:
        await wait_until(lambda: database.refusals)  # it asks for the asset's state
        database.down = False
        await wait_until(lambda: alive.has_event)
        database.down, database.refusals = True, 0
        alive.confirm(alive.store_events())
        await wait_until(lambda: database.refusals)  # it tries to update the asset's state
        database.down = False
        await wait_until(lambda: database.remembered)
        await alive.await_looks()
    assert database.names == ["a.csv"]
