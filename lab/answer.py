"""A command's answer as one JSON object, for another program."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from lab.console import from_os_error, keep_output, rewrite_for_nox
from lab.errors import LabError


@contextmanager
def answering(as_json: bool, aside: TextIO | None = None) -> Iterator[dict[str, Any]]:
    """Yield the facts that the block finds; with `as_json` print them as one object at its end.

    A block that fails has its object, too: `ok` is false, `error` says why, and what was found
    until then is in it. With `as_json` all that the block prints goes to `aside`, or nowhere.
    """
    facts: dict[str, Any] = {}
    if not as_json:
        yield facts
        return
    failure: dict[str, Any] = {}
    try:
        with redirect_stdout(aside or io.StringIO()):
            yield facts
    except BaseException as error:  # Ctrl-C, too
        failure = {"ok": False, **describe_failure(error)}
        raise
    finally:
        print(json.dumps(facts | failure))


def describe_failure(error: BaseException) -> dict[str, str | None]:
    """Return what happened, what to do and where the log is, as the lines on stderr say it."""
    if isinstance(error, OSError):
        error = from_os_error(error)
    if isinstance(error, LabError):
        keep_output(error)
        log = str(error.log) if error.log else None
        return {"error": error.what, "try": rewrite_for_nox(error.fix), "log": log}
    what = "interrupted" if isinstance(error, KeyboardInterrupt) else repr(error)
    return {"error": what, "try": None, "log": None}
