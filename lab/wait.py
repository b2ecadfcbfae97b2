"""Waiting for something to become true: a deadline always, and the last reason in the message."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from lab.errors import ServiceError

T = TypeVar("T")


class NotYet(Exception):
    """What is waited for is not so yet; the text says how it stands."""


def until(
    check: Callable[[], T],
    *,
    what: str,
    timeout: float,
    interval: float = 0.1,
    alive: Callable[[], str | None] = lambda: None,
    log: Path | None = None,
) -> T:
    """What `check` returned as soon as it raised neither NotYet nor an OSError.

    `alive` is asked each time: a reason to give up early, or None. Raises ServiceError after
    `timeout` seconds or when there is such a reason, with the last status in its text.
    """

    def attempt() -> T:
        if reason := alive():
            raise ServiceError(reason, "read the log, then run: lab up", log)
        return check()

    retrying = Retrying(
        retry=retry_if_exception_type((NotYet, OSError)),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(interval),
    )
    try:
        return retrying(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise ServiceError(
            f"{what} was not ready after {timeout:.0f} s: {last}",
            "read the log, then run `lab up` again; `lab down` removes what is there",
            log,
        ) from last


def together(*jobs: Callable[[], object]) -> None:
    """All jobs are done; they ran side by side. Raises what the first failed one raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
