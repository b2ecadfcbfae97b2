"""New objects under a prefix of the lab's bucket, as events of an asset.

An object is new when no event has told of this content (its ETag) under this key. What was told is
kept with the asset, in Airflow's asset state store: in the database that holds the events, so that
a lost or restored database never keeps the memory and loses the events. It names nothing that has
left the prefix, so it is no larger than the prefix.

Airflow's ack mode says when an event is in that database, and only then it is remembered. So no
event is lost, whatever is killed; a triggerer that is killed in the seconds between the two tells
of the object a second time. Who consumes the events must bear that.
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

SHARDS = 16  # values that the memory is divided into: each write is of a small one
AT_ONCE = 200  # events on their way to the database; the others wait in the bucket
SETTLE_SECONDS = 1.0  # see Arrivals.advance
LONGEST_PAUSE = 30.0  # seconds between two tries, when nothing answers
STORE_SECONDS = 30.0  # for one call of the state store

T = TypeVar("T")
log = logging.getLogger(__name__)


class Store(Protocol):
    """What is needed of Airflow's asset state store."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


class NewObjects(BaseEventTrigger):
    """Fires {"key", "etag", "size"} once for each new object whose key is `prefix`...`suffix`.

    `asset` is the name of the asset that it watches for, which keeps the memory: one watcher for
    each asset. What was there before the watcher is new to it.
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
        """Each trigger has a stream of its own: it is for ack mode, not for sharing."""
        return self.asset, self.prefix, self.suffix, self.trigger_id

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        from airflow.sdk.execution_time.context import AssetStateStoreAccessor

        trigger = cls(**kwargs)
        prefix = Prefix(trigger.prefix, trigger.suffix)
        store = AssetStateStoreAccessor(name=trigger.asset)
        return Arrivals(prefix.objects, Memory(store), trigger.seconds)

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Object]
    ) -> AsyncIterator[TriggerEvent]:
        async for found in shared_stream:
            yield TriggerEvent(asdict(found))

    def run(self) -> AsyncIterator[TriggerEvent]:
        """Never called: the stream's events come by way of `filter_shared_stream`."""
        raise NotImplementedError("a triggerer without shared streams can't run this trigger")


class Prefix:
    """The objects of a prefix, by one client for as long as it works."""

    def __init__(self, prefix: str, suffix: str) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.client: S3Client | None = None

    def objects(self) -> list[Object]:
        """What is there now. Raises what boto3 raises; the next call reads the contract again."""
        client, self.client = self.client or lab_bucket.client(), None
        found = lab_bucket.listing(self.prefix, client)
        self.client = client
        return [o for o in found if o.key.endswith(self.suffix) and not o.key.endswith("/")]


class Memory:
    """The ETag under which each key of the prefix was told of last."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shards: list[dict[str, str]] = []

    async def load(self) -> None:
        self.shards = [
            dict(await self.answer(self.store.aget(name_of(shard), {}))) for shard in range(SHARDS)
        ]

    def has(self, found: Object) -> bool:
        return self.shards[shard_of(found.key)].get(found.key) == found.etag

    async def add(self, told: Sequence[Object]) -> None:
        """These have been told of, and will not be again."""
        changed = {shard_of(each.key) for each in told}
        for each in told:
            self.shards[shard_of(each.key)][each.key] = each.etag
        await self.write(changed)

    async def keep(self, present: Iterable[Object]) -> None:
        """Nothing else than `present` is remembered."""
        keys = {each.key for each in present}
        gone = [key for shard in self.shards for key in shard if key not in keys]
        for key in gone:
            del self.shards[shard_of(key)][key]
        await self.write({shard_of(key) for key in gone})

    async def write(self, shards: Iterable[int]) -> None:
        for shard in sorted(shards):
            await self.answer(self.store.aset(name_of(shard), self.shards[shard]))

    @staticmethod
    async def answer(call: Awaitable[T]) -> T:
        """A triggerer that ends leaves calls without an answer."""
        return await asyncio.wait_for(call, STORE_SECONDS)


def shard_of(key: str) -> int:
    return zlib.crc32(key.encode()) % SHARDS


def name_of(shard: int) -> str:
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
        """Each new object, for ever. Whatever does not answer is asked again."""
        try:
            await self.patiently(self.memory.load)
            while True:
                for found in await self.patiently(self.new_objects):
                    self.under_way.add(found)
                    yield found, found
                await asyncio.sleep(self.seconds)
        finally:
            self.closed = True

    async def new_objects(self) -> list[Object]:
        """As many as may be under way. What has left the prefix is forgotten."""
        present = await asyncio.to_thread(self.listing)
        await self.memory.keep(present)
        new = [o for o in present if o not in self.under_way and not self.memory.has(o)]
        return new[: max(0, AT_ONCE - len(self.under_way))]

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """What Airflow has stored is remembered; what it has not is told of again.

        Airflow says "stored", too, of an event whose watcher was just taken away (its DAG was
        paused or changed), which it has dropped. It closes the stream a moment later: until then
        nothing is believed.
        """
        await asyncio.sleep(SETTLE_SECONDS)
        if self.closed:
            return
        stored = [item.broker_payload for item in batch if item.outcome.is_clean]
        await self.patiently(lambda: self.memory.add(stored))
        self.under_way.difference_update(item.broker_payload for item in batch)

    async def patiently(self, do: Callable[[], Awaitable[T]]) -> T:
        """What `do` returned, after as many tries as it takes; the first failure is logged."""
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
