"""New objects under a prefix of the lab's bucket, as events of an asset.

An object is new when no event was emitted for this content (its ETag) under this key. The emitted
ones are remembered with the asset, in Airflow's asset state store: in the database that holds the
events, so that a lost or restored database never keeps the memory and loses the events. Objects
that have left the prefix are forgotten, so the memory is no larger than the prefix.

Airflow's ack mode confirms that an event is in the database, and only then it is remembered. So no
event is lost, whatever is killed; a triggerer that is killed in the seconds between the two, or
whose watcher is removed then and added again (its DAG was paused and unpaused), emits a second
event for the object. Consumers of the events must tolerate that.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

import lab_bucket
from lab_bucket import Object

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SHARDS = 16  # parts of the memory, stored separately so that each write is small
AT_ONCE = 200  # events in flight to the database; other objects wait in the bucket
SETTLE_SECONDS = 1.0  # see Arrivals.advance
LONGEST_PAUSE = 30.0  # seconds between two retries
STORE_SECONDS = 30.0  # timeout of one call of the state store

T = TypeVar("T")
log = logging.getLogger(__name__)


class Store(Protocol):
    """The part of Airflow's asset state store that is used here."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


class NewObjects(BaseEventTrigger):
    """Fires {"key", "etag", "size"} once for each new object whose key is `prefix`...`suffix`.

    `asset` is the name of the watched asset, whose state holds the memory: an asset has one
    watcher. Objects that are older than the watcher are new to it.
    """

    def __init__(self, asset: str, prefix: str, suffix: str = "", seconds: float = 1.0) -> None:
        super().__init__()
        self.asset = asset
        self.prefix = prefix
        self.suffix = suffix
        self.seconds = float(seconds)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("asset", "prefix", "suffix", "seconds")
        return "lab_arrivals.NewObjects", {name: getattr(self, name) for name in names}

    def shared_stream_key(self) -> Hashable:
        """Return a key of this trigger's own: the stream is used for ack mode, not for sharing."""
        return self.asset, self.prefix, self.suffix, self.trigger_id

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        from airflow.sdk.execution_time.context import AssetStateStoreAccessor

        trigger = cls(**kwargs)
        prefix = Prefix(trigger.prefix, trigger.suffix)
        store = AssetStateStoreAccessor(name=trigger.asset)
        return Arrivals(prefix.list_objects, Memory(store), trigger.seconds)

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Object]
    ) -> AsyncIterator[TriggerEvent]:
        async for found in shared_stream:
            yield TriggerEvent(asdict(found))

    def run(self) -> AsyncIterator[TriggerEvent]:
        """Raise NotImplementedError; never called, as events come from `filter_shared_stream`."""
        raise NotImplementedError("a triggerer without shared streams can't run this trigger")


class Prefix:
    """The objects of a prefix, listed by one client for as long as it works."""

    def __init__(self, prefix: str, suffix: str) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.client: S3Client | None = None

    def list_objects(self) -> list[Object]:
        """List the objects. After an error of boto3, the next call makes a new client."""
        client, self.client = self.client or lab_bucket.client(), None
        found = lab_bucket.listing(self.prefix, client)
        self.client = client
        return [o for o in found if o.key.endswith(self.suffix) and not o.key.endswith("/")]


class Memory:
    """The ETag of the last event of each key under the prefix."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shards: list[dict[str, str]] = []

    async def load(self) -> None:
        self.shards = [
            dict(await self.with_timeout(self.store.aget(shard_name(shard), {})))
            for shard in range(SHARDS)
        ]

    def has(self, found: Object) -> bool:
        return self.shards[shard_index(found.key)].get(found.key) == found.etag

    async def add(self, stored: Sequence[Object]) -> None:
        """Remember objects whose events are stored."""
        changed = {shard_index(each.key) for each in stored}
        for each in stored:
            self.shards[shard_index(each.key)][each.key] = each.etag
        await self.write(changed)

    async def forget_all_but(self, present: Iterable[Object]) -> None:
        """Forget all objects but those in `present`."""
        keys = {each.key for each in present}
        gone = [key for shard in self.shards for key in shard if key not in keys]
        for key in gone:
            del self.shards[shard_index(key)][key]
        await self.write({shard_index(key) for key in gone})

    async def write(self, shards: Iterable[int]) -> None:
        for shard in sorted(shards):
            await self.with_timeout(self.store.aset(shard_name(shard), self.shards[shard]))

    @staticmethod
    async def with_timeout(call: Awaitable[T]) -> T:
        """Await a call for STORE_SECONDS: a triggerer that ends leaves calls unanswered."""
        return await asyncio.wait_for(call, STORE_SECONDS)


def shard_index(key: str) -> int:
    return zlib.crc32(key.encode()) % SHARDS


def shard_name(shard: int) -> str:
    return f"told-{shard:02}"


class Arrivals(SharedStreamProducer):
    """Yields new objects, and remembers those whose events are in Airflow's database."""

    def __init__(self, listing: Callable[[], list[Object]], memory: Memory, seconds: float) -> None:
        self.listing = listing
        self.memory = memory
        self.seconds = seconds
        self.under_way: set[Object] = set()
        self.closed = False

    async def open_stream(self) -> AsyncIterator[tuple[Object, Object]]:
        """Yield each new object, for ever. Failures are retried."""
        try:
            await self.with_retries(self.memory.load)
            while True:
                for found in await self.with_retries(self.find_new_objects):
                    self.under_way.add(found)
                    yield found, found
                await asyncio.sleep(self.seconds)
        finally:
            self.closed = True

    async def find_new_objects(self) -> list[Object]:
        """List new objects, AT_ONCE in flight at most. Forget objects that have left the prefix."""
        present = await asyncio.to_thread(self.listing)
        await self.memory.forget_all_but(present)
        new = [o for o in present if o not in self.under_way and not self.memory.has(o)]
        return new[: max(0, AT_ONCE - len(self.under_way))]

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Remember the objects whose events Airflow has stored; the others are yielded again.

        Airflow also acknowledges an event that it has dropped, when its watcher was just removed
        (its DAG was paused or changed). It closes the stream a moment later: so wait that long
        before believing it.
        """
        await asyncio.sleep(SETTLE_SECONDS)
        if self.closed:
            return
        stored = [item.broker_payload for item in batch if item.outcome.is_clean]
        await self.with_retries(lambda: self.memory.add(stored))
        self.under_way.difference_update(item.broker_payload for item in batch)

    async def with_retries(self, do: Callable[[], Awaitable[T]]) -> T:
        """Call `do` until it succeeds, and return its result. Log the first failure."""
        failures = 0
        while True:
            try:
                done = await do()
            except Exception as error:
                if self.closed:
                    raise
                if not failures:
                    log.warning("the watcher will try again: %s: %s", type(error).__name__, error)
                await asyncio.sleep(min(self.seconds * 2 ** min(failures, 9), LONGEST_PAUSE))
                failures += 1
            else:
                if failures:
                    log.warning("the watcher has an answer again, after %d failures", failures)
                return done
