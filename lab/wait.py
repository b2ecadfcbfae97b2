"""Waiting, always with a deadline; the error says why the last try failed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from lab.errors import LabError, ServiceError

if TYPE_CHECKING:
    from requests import Response

T = TypeVar("T")


class NotYet(Exception):
    """What is waited for is not the case yet; the text says how it stands."""


def not_ready(what: str, log: Path | None) -> ServiceError:
    """Return the error for what a lab's services have not done in time."""
    fix = "read the log, then run `lab up` again; `lab down` removes what is there"
    return ServiceError(what, fix, log)


def wait_until(
    check: Callable[[], T],
    *,
    what: str,
    timeout: float,
    interval: float = 0.1,
    failure: Callable[[], str | None] = lambda: None,
    log: Path | None = None,
    retry: tuple[type[Exception], ...] = (NotYet, OSError),
    late: Callable[[str, Path | None], LabError] = not_ready,
) -> T:
    """Call `check` until it raises none of `retry`; return what it returned.

    `failure` is called before each try and returns a reason to give up, or None. Raises
    ServiceError with that reason, or after `timeout` seconds what `late` makes of the last status.
    """

    def attempt() -> T:
        if reason := failure():
            raise ServiceError(reason, "read the log, then run: lab up", log)
        return check()

    retrying = Retrying(
        retry=retry_if_exception_type(retry),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(interval),
    )
    try:
        return retrying(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise late(f"{what} was not ready after {timeout:.0f} s: {last}", log) from last


def expect_answer(url: str, status: int = 200, timeout: float = 5, **tls: Any) -> Response:
    """Return what GET of `url` answers. Raise NotYet or an OSError unless it has this status.

    `tls` are the certificates, as requests takes them: `cert` and `verify`.
    """
    import requests

    reply = requests.get(url, timeout=timeout, **tls)
    if reply.status_code != status:
        raise NotYet(f"{url} answers {reply.status_code}")
    return reply


def run_in_parallel(*jobs: Callable[[], object]) -> None:
    """Run all jobs in parallel until each has ended. Raises what the first failed one raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
