"""How a step fails: for now, or for good."""

from __future__ import annotations


class StepError(Exception):
    """The step can't be done, and trying again won't help: the data or the set-up is wrong."""

    exit_code = 65  # EX_DATAERR of sysexits.h; the operator does not retry it


class TemporaryError(StepError):
    """A server did not answer as it should; the same step may succeed later."""

    exit_code = 75  # EX_TEMPFAIL
