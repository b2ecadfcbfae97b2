"""One push at a time to each repository, after the leftovers of a killed one are gone."""

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

# What git locks while it writes, and where it gathers a push's objects before accepting them
# (`incoming-*` before git 2.35). No reference's name can end in `.lock`.
_LOCKS = ("HEAD.lock", "packed-refs.lock", "packed-refs.new", "config.lock", "shallow.lock")
_QUARANTINES = ("tmp_objdir-*", "incoming-*")


class Busy(Exception):
    """The pushes before this one did not end in time."""


class Pushes:
    """Whose turn it is to push, for every repository."""

    def __init__(self) -> None:
        self._queues: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def turn(self, repository: Path) -> AsyncIterator[int]:
        """Within it nobody else writes to the repository, which holds no stale lock.

        Yields a descriptor that the processes that write must inherit: as long as one of them
        lives, no other turn begins. Raises Busy when the turn does not come in `PATIENCE` seconds.
        """
        async with self._queue(repository), _sole_writer(repository) as descriptor:
            # A git that was killed (a timeout, a client that went away, a SIGKILL, a power cut)
            # leaves its lock files, and git refuses to write until somebody removes them. Here
            # that is safe: no process that could own them is alive.
            remove_leftovers(repository)
            yield descriptor

    @asynccontextmanager
    async def _queue(self, repository: Path) -> AsyncIterator[None]:
        lock = self._queues[repository]
        await _patiently(lock.acquire())
        try:
            yield
        finally:
            lock.release()


def remove_leftovers(repository: Path) -> None:
    """No lock file and no unaccepted object remains. Only for a repository nobody writes to."""
    named = (repository / name for name in _LOCKS)
    for lock in chain(named, list((repository / "refs").rglob("*.lock"))):
        lock.unlink(missing_ok=True)
    for pattern in _QUARANTINES:
        for quarantine in list((repository / "objects").glob(pattern)):
            shutil.rmtree(quarantine)


def remove_all_leftovers(root: Path) -> None:
    """No repository under the root has leftovers, but for those that somebody still writes to."""
    for name in repositories.existing(root):
        repository = repositories.folder(root, name)
        with _opened(repository) as descriptor:
            if _locked(descriptor):
                remove_leftovers(repository)


@asynccontextmanager
async def _sole_writer(repository: Path) -> AsyncIterator[int]:
    # The queue knows only this server's pushes. When a server is killed outright, its git may
    # finish its work while the next server is up already. Such an orphan still holds the
    # descriptor that it inherited, and with it this lock of the folder.
    with _opened(repository) as descriptor:
        await _patiently(_lock(descriptor))
        yield descriptor


async def _lock(descriptor: int) -> None:
    while True:
        if _locked(descriptor):
            return
        await asyncio.sleep(_POLL)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _patiently(wait: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await wait
    except TimeoutError:
        raise Busy from None
