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


def create_console() -> Console:
    """Create the console that shows progress: a new one each time, so that tests can capture it."""
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
    out = create_console()
    began = time.monotonic()
    done = False
    try:
        with out.status(Text(title)) if out.is_terminal else silent_phase(title):
            yield
        done = True
    finally:
        seconds = time.monotonic() - began
        print(f"{mark(done)} {title:<{WIDTH}} {seconds:6.1f} s", flush=True)


@contextmanager
def silent_phase(title: str) -> Iterator[None]:  # noqa: ARG001  called as `phase` is
    """Show nothing: tests and a service's restart use it in place of `phase`."""
    yield


def phase_title(function: Callable[..., object]) -> str:
    """Return a phase's progress line: the first line of its docstring."""
    return (function.__doc__ or function.__name__).strip().splitlines()[0].rstrip(".")
