"""Progress lines: one per phase, with its seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.text import Text

WIDTH = 62
Report = Callable[[str], AbstractContextManager[None]]


def console() -> Console:
    """Where progress is shown; asked for anew each time, so that tests can capture it."""
    return Console(highlight=False, soft_wrap=True)


def mark(done: bool) -> str:
    """A check mark where the terminal can show one."""
    wanted, plain = ("✓", "ok") if done else ("✗", "failed")
    try:
        wanted.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return plain
    return wanted


@contextmanager
def phase(title: str) -> Iterator[None]:
    """A line `✓ title  seconds` when the block ends, `✗ title  seconds` when it raises."""
    out = console()
    began = time.monotonic()
    done = False
    try:
        with out.status(Text(title)) if out.is_terminal else silent(title):
            yield
        done = True
    finally:
        seconds = time.monotonic() - began
        print(f"{mark(done)} {title:<{WIDTH}} {seconds:6.1f} s", flush=True)


@contextmanager
def silent(title: str) -> Iterator[None]:  # noqa: ARG001  called as `phase` is
    """Shows nothing: what tests and a service's restart use in the place of `phase`."""
    yield


def title(function: Callable[..., object]) -> str:
    """A phase's progress line: the first line of its docstring."""
    return (function.__doc__ or function.__name__).strip().splitlines()[0].rstrip(".")
