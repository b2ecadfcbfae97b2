"""Ways that are measured in turns, so that what else the machine does slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median


def take_turns(rounds: int, *ways: Callable[[], float]) -> list[float]:
    """Call the ways in turns and return the median of each.

    One more round comes first and does not count. A single round comes alone: it only shows that
    the measurement works.
    """
    warm_up = 1 if rounds > 1 else 0
    found = [[way() for way in ways] for _ in range(rounds + warm_up)]
    return [median(column) for column in zip(*found[warm_up:], strict=True)]
