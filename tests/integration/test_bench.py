"""The parts of `nox -s bench` that need no lab; tests/e2e/test_bench.py has the others."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from tests.bench.cold_start import measure_cold_start
from tests.bench.promotion import measure_promotion
from tests.bench.turns import take_turns
from tests.support import needs


def test_ways_take_turns_and_the_first_round_does_not_count() -> None:
    called: list[str] = []

    def way(name: str, *seconds: float) -> Callable[[], float]:
        left = list(seconds)

        def measure() -> float:
            called.append(name)
            return left.pop(0)

        return measure

    assert take_turns(3, way("a", 99, 1, 2, 3), way("b", 99, 6, 5, 4)) == [2, 5]
    assert called == ["a", "b"] * 4
    assert take_turns(1, way("a", 7)) == [7]


@pytest.mark.kind
def test_the_promotion_is_measured_against_commands_by_hand() -> None:
    needs.need_renderers()
    (row,) = measure_promotion(argparse.Namespace(rounds=1))
    assert 0 < row.lab < 120
    assert row.plain
    assert 0 < row.plain < 120


@pytest.mark.long  # a minute, and the package index or its cache
def test_a_cold_start_is_measured_by_phases() -> None:
    whole, rest, *phases = measure_cold_start("embedded")
    assert phases[-1].what == "  Run dataset_pipeline"
    assert 0 < rest.lab < whole.lab
