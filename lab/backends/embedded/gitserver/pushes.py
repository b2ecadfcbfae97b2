"""A lock that lets one push at a time into a repository and removes a killed push's leftovers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from lab.backends.embedded.gitserver import repositories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from pathlib import Path

PATIENCE = 120.0  # seconds that a push waits for the ones before it
_POLL = 0.05  # seconds

# The lock files that git writes, and the folders where it collects a push's objects before it
# accepts them (`incoming-*` before git 2.35). No reference's name can end in `.lock`.
_LOCKS = ("HEAD.lock", "packed-refs.lock", "packed-refs.new", "config.lock", "shallow.lock")
_QUARANTINES = ("tmp_objdir-*", "incoming-*")


class Busy(Exception):
    """The pushes before this one did not finish in time."""


class PushQueue:
    """One queue of pushes per repository."""

    def __init__(self) -> None:
        self._queues: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def turn(self, repository: Path) -> AsyncIterator[int]:
        """Keep every other writer out of the repository, and remove stale locks first.

        Yields a descriptor that the writing processes must inherit: as long as one of them lives,
        no other turn begins. Raises Busy when the turn does not come in `PATIENCE` seconds.
        """
        async with self._queue_lock(repository), _folder_lock(repository) as descriptor:
            # A git that was killed (a timeout, a client that went away, a SIGKILL, a power cut)
            # leaves its lock files, and git refuses to write until somebody removes them. Here
            # that is safe: no process that could own them is alive.
            remove_leftovers(repository)
            yield descriptor

    @asynccontextmanager
    async def _queue_lock(self, repository: Path) -> AsyncIterator[None]:
        lock = self._queues[repository]
        await _wait_with_timeout(lock.acquire())
        try:
            yield
        finally:
            lock.release()


def remove_leftovers(repository: Path) -> None:
    """Delete lock files and objects of unaccepted pushes; only while nobody writes there."""
    named = (repository / name for name in _LOCKS)
    for lock in chain(named, list((repository / "refs").rglob("*.lock"))):
        lock.unlink(missing_ok=True)
    for pattern in _QUARANTINES:
        for quarantine in list((repository / "objects").glob(pattern)):
            shutil.rmtree(quarantine)


def remove_all_leftovers(root: Path) -> None:
    """Delete the leftovers of every repository under the root that nobody writes to."""
    for name in repositories.list_names(root):
        repository = repositories.folder(root, name)
        with _open_folder(repository) as descriptor:
            if _try_lock(descriptor):
                remove_leftovers(repository)


@asynccontextmanager
async def _folder_lock(repository: Path) -> AsyncIterator[int]:
    # The queue knows only this server's pushes. When a server is killed by SIGKILL, its git may
    # still be writing when the next server is up. Such an orphan holds the descriptor that it
    # inherited, and with it this lock of the folder.
    with _open_folder(repository) as descriptor:
        await _wait_with_timeout(_wait_for_lock(descriptor))
        yield descriptor


async def _wait_for_lock(descriptor: int) -> None:
    while True:
        if _try_lock(descriptor):
            return
        await asyncio.sleep(_POLL)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _open_folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _wait_with_timeout(wait: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await wait
    except TimeoutError:
        raise Busy from None
