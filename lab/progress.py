"""Progress lines: one per phase, with its seconds.

nox imports this before anything is installed: rich is imported when it is used.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 62
STEP = 1.0  # seconds between two changes of a line that counts them
Report = Callable[[str], AbstractContextManager[None]]


def create_console() -> Console:
    """Create the console that shows progress: a new one each time, so that tests can capture it."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def mark(done: bool) -> str:
    """Return a check mark or a cross, or a word where the terminal can't show them."""
    wanted, plain = ("✓", "ok") if done else ("✗", "failed")
    try:
        wanted.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return plain
    return wanted


@contextmanager
def phase(title: str) -> Iterator[None]:
    """Print `✓ title  seconds` when the block ends, `✗ title  seconds` when it raises."""
    from rich.text import Text

    out = create_console()
    began = time.monotonic()
    done = False
    try:
        with out.status(Text(title)) if out.is_terminal else silent_phase(title):
            yield
        done = True
    finally:
        print(phase_line(mark(done), title, began), flush=True)


@contextmanager
def counting_phase(title: str) -> Iterator[None]:
    """Print what `phase` does, by the standard library only; on a terminal, count the seconds.

    Nothing else may be printed in the block.
    """
    began, ended, done = time.monotonic(), threading.Event(), False

    def count() -> None:
        while not ended.wait(STEP):
            print(f"\r{phase_line(' ', title, began)}", end="", flush=True)

    counter = threading.Thread(target=count, daemon=True)
    if sys.stdout.isatty():
        counter.start()
    try:
        yield
        done = True
    finally:
        ended.set()
        if counter.ident:
            counter.join()
            print("\r", end="")
        print(phase_line(mark(done), title, began), flush=True)


def phase_line(begin: str, title: str, began: float) -> str:
    """Return a phase's line, with the seconds since `began`, a time of `time.monotonic`."""
    return f"{begin} {title:<{WIDTH}} {time.monotonic() - began:6.1f} s"


@contextmanager
def silent_phase(title: str) -> Iterator[None]:  # noqa: ARG001  called as `phase` is
    """Show nothing: tests and a service's restart use it in place of `phase`."""
    yield


def phase_title(function: Callable[..., object]) -> str:
    """Return a phase's progress line: the first line of its docstring."""
    return (function.__doc__ or function.__name__).strip().splitlines()[0].rstrip(".")
