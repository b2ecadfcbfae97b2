"""Keep end-to-end tests away from the hours at which schedules start runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.support.dag_runs import DAILY_HOURS, wait_until_idle

BEFORE = timedelta(minutes=5)  # no test takes longer


@pytest.fixture(autouse=True)
def _between_scheduled_runs(request: pytest.FixtureRequest) -> None:
    """Wait while a scheduled run is near: what a test finds must be made by its own runs."""
    if not is_scheduled_run_near(datetime.now(UTC)):
        return
    lab: Lab = request.getfixturevalue("lab")
    wait_until(require_no_run_near, what="the hour of a scheduled run", timeout=600, interval=1)
    for dag in DAILY_HOURS:
        wait_until_idle(lab, dag)


def is_scheduled_run_near(now: datetime) -> bool:
    """Return whether a scheduled run begins within BEFORE, or began in the last 30 seconds."""
    moments = (now.replace(hour=hour, minute=0, second=0) for hour in DAILY_HOURS.values())
    day, after = timedelta(days=1), timedelta(seconds=30)
    return any((moment + after - now) % day < BEFORE + after for moment in moments)


def require_no_run_near() -> None:
    """Raise NotYet while a scheduled run is near."""
    if is_scheduled_run_near(datetime.now(UTC)):
        raise NotYet("it is near")
