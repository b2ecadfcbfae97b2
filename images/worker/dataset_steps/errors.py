"""The errors of a step: temporary, or for good."""

from __future__ import annotations


class StepError(Exception):
    """The step fails, and a retry won't help: the data or the set-up is wrong."""

    exit_code = 65  # EX_DATAERR of sysexits.h; the operator does not retry it


class TemporaryError(StepError):
    """A server did not answer as it should; a retry may succeed."""

    exit_code = 75  # EX_TEMPFAIL


class Overtaken(StepError):
    """Somebody published first: the steps between pull and publish have to run again."""

    exit_code = 80  # none of sysexits.h
