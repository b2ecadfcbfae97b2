"""Waiting ends with the result, at the deadline, or as soon as it has become hopeless."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import requests

from lab.errors import RunError, ServiceError
from lab.wait import NotYet, wait_until


def create_flaky_check() -> Callable[[], int]:
    """Return a check that fails twice and then returns the number of its calls."""
    calls = itertools.count(1)

    def check() -> int:
        if (number := next(calls)) < 3:
            raise NotYet(f"call {number}")
        return number

    return check


def raise_not_yet() -> NoReturn:
    raise NotYet("still asleep")


def test_the_first_answer_is_returned() -> None:
    assert wait_until(lambda: "ready", what="it", timeout=0) == "ready"


def test_it_asks_until_there_is_an_answer() -> None:
    assert wait_until(create_flaky_check(), what="it", timeout=5, interval=0.01) == 3


@pytest.mark.parametrize("error", [ConnectionRefusedError(), requests.ConnectionError("refused")])
def test_a_server_that_is_not_there_yet_is_asked_again(error: OSError) -> None:
    calls = itertools.count(1)

    def check() -> str:
        if next(calls) < 3:
            raise error
        return "hello"

    assert wait_until(check, what="it", timeout=5, interval=0.01) == "hello"


def test_a_deadline_ends_it_with_the_last_status(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        wait_until(
            raise_not_yet, what="the cat", timeout=1, interval=0.05, log=tmp_path / "cat.log"
        )
    assert 0.9 < time.monotonic() - began < 3
    assert caught.value.what == "the cat was not ready after 1 s: still asleep"
    assert caught.value.log == tmp_path / "cat.log"
    assert isinstance(caught.value.__cause__, NotYet)


def test_there_is_one_attempt_even_without_time() -> None:
    with pytest.raises(ServiceError, match="still asleep"):
        wait_until(raise_not_yet, what="the cat", timeout=0)


def test_it_gives_up_at_once_when_there_is_no_hope(tmp_path: Path) -> None:
    reasons = iter([None, None, "the cat is gone"])
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        wait_until(
            raise_not_yet,
            what="the cat",
            timeout=60,
            interval=0.01,
            failure=lambda: next(reasons),
            log=tmp_path,
        )
    assert time.monotonic() - began < 5
    assert caught.value.what == "the cat is gone"
    assert caught.value.log == tmp_path


def test_what_is_dead_is_not_asked() -> None:
    asked: list[int] = []
    with pytest.raises(ServiceError, match="gone"):
        wait_until(lambda: asked.append(1), what="it", timeout=1, failure=lambda: "gone")
    assert not asked


def test_any_other_failure_is_passed_on_at_once() -> None:
    def check() -> NoReturn:
        raise RunError("failed", "read its log")

    began = time.monotonic()
    with pytest.raises(RunError, match="failed"):
        wait_until(check, what="it", timeout=60)
    assert time.monotonic() - began < 5
