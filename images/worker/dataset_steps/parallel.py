"""Work in threads, with no more of it in memory at once than there are threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition, Event, Lock
from typing import TypeVar

Item = TypeVar("Item")


def for_each(items: Iterable[Item], work: Callable[[Item], object], at_once: int) -> None:
    """Call `work` with each item, in `at_once` threads; an item is taken when a thread is free.

    After an error no thread takes another item. Raise the first error when all have ended.
    """
    source, lock, ended = iter(items), Lock(), Event()

    def take_items() -> Iterator[Item]:
        while not ended.is_set():
            with lock:
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def work_on() -> None:
        try:
            for item in take_items():
                work(item)
        except BaseException:
            ended.set()
            raise

    try:
        with ThreadPoolExecutor(at_once) as pool:
            threads = [pool.submit(work_on) for _ in range(at_once)]
    finally:
        ended.set()
    for thread in threads:
        thread.result()


class Budget:
    """A number of bytes that threads may hold in memory together."""

    def __init__(self, most: int) -> None:
        self.free = most
        self.changed = Condition()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them while the block runs."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= size)
            self.free -= size
        try:
            yield
        finally:
            with self.changed:
                self.free += size
                self.changed.notify_all()
