"""End-to-end tests keep out of the way of the clock, which starts runs of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lab.lab import Lab
from lab.wait import NotYet, until
from tests.support.idle import await_idle

HOURS = {"dataset_pipeline": 2, "sales_pipeline": 6}  # UTC, each day
BEFORE = timedelta(minutes=5)  # no test takes longer


@pytest.fixture(autouse=True)
def _between_scheduled_runs(request: pytest.FixtureRequest) -> None:
    """What a test finds was made by its own runs: none of the clock's begins meanwhile."""
    if not soon(datetime.now(UTC)):
        return
    lab: Lab = request.getfixturevalue("lab")
    until(past, what="the hour of a scheduled run", timeout=600, interval=1)
    for dag in HOURS:
        await_idle(lab, dag)


def soon(now: datetime) -> bool:
    """Whether a scheduled run begins in the next minutes, or has begun in the last."""
    moments = (now.replace(hour=hour, minute=0, second=0) for hour in HOURS.values())
    day, just = timedelta(days=1), timedelta(seconds=30)
    return any((moment + just - now) % day < BEFORE + just for moment in moments)


def past() -> None:
    if soon(datetime.now(UTC)):
        raise NotYet("it is near")
