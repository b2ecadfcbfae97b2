"""Work in threads: bounded, ended by the first error, whose error is raised."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset_steps.parallel import Budget, for_each

WAIT = 10  # seconds for what happens at once


def test_each_item_is_worked_on_once() -> None:
    done: list[int] = []
    for_each(range(1000), done.append, 8)
    assert sorted(done) == list(range(1000))
    for_each([], done.append, 8)
    assert len(done) == 1000


def test_no_item_is_taken_before_a_thread_is_free() -> None:
    """What is waiting costs no memory."""
    taken, go_on = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    busy = threading.Semaphore(0)

    def work(_: int) -> None:
        busy.release()
        assert go_on.wait(WAIT)

    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(for_each, items(), work, 4)
        for _ in range(4):
            assert busy.acquire(timeout=WAIT)
        assert len(taken) == 4
        go_on.set()
        whole.result(WAIT)
    assert len(taken) == 100


def test_the_first_error_ends_the_work() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 5:
            raise ValueError("five")
        done.append(number)

    with pytest.raises(ValueError, match="five"):
        for_each(range(100_000_000), work, 2)
    assert len(done) < 100_000


def test_a_budget_is_not_exceeded() -> None:
    budget, held, most = Budget(100), [0], [0]
    lock = threading.Lock()

    def work(size: int) -> None:
        with budget.holding(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            with lock:
                held[0] -= size

    for_each((1 + n * 7 % 60 for n in range(2000)), work, 16)
    assert 0 < most[0] <= 100
    assert budget.free == 100
