"""`nox -s bench`: each part measures what it says, once, on a lab that others use, too."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from lab.config import Config
from lab.lab import Lab
from tests.bench.__main__ import ON_A_LAB
from tests.bench.cold_start import measure_command
from tests.bench.row import Row
from tests.bench.usage import SHARE

ASSET = "push:lab/datasets:main"
ONCE = argparse.Namespace(rounds=1, megabytes=[10], files=100, at_once=[1], seconds=0.5)
# By part: the pushes to the datasets that a DAG hears of. A run that one of them starts is measured
# where it is meant to be, and nowhere else.
PUSHES = {
    "commit": 0,
    "seed": 0,
    "identity": 0,
    "sizes": 0,
    "directories": 0,
    "throughput": 0,
    "triggers": 1,
    "usage": 0,
}
ON_KIND_ALONE = ("seed", "identity")


def list_parts() -> list[object]:
    """Return each part that needs a lab; all but two do on kind what they do on embedded."""
    again = pytest.mark.variation
    return [pytest.param(n, marks=() if n in ON_KIND_ALONE else again) for n in ON_A_LAB]


@pytest.mark.parametrize("part", list_parts())
def test_a_part_measures_its_own_runs_only(lab: Lab, lab_config: Config, part: str) -> None:
    before = len(lab.events(ASSET))
    rows = list(ON_A_LAB[part](lab, lab_config, ONCE))
    assert bool(rows) == (part not in ON_KIND_ALONE or lab.backend == "kind")
    for row in rows:
        check_plausible(row)
    assert len(lab.events(ASSET)) - before == PUSHES[part]


def check_plausible(row: Row) -> None:
    """Check that a row's numbers can be those of one thing done once, in its unit.

    An idle lab may use no CPU in half a second, and all cores when it has something to do.
    """
    if row.unit == SHARE:
        assert 0 <= row.lab <= 100 * (os.cpu_count() or 1), row
    else:
        assert 0 < row.lab < 120, row
    assert row.plain is None or 0 < row.plain < 120, row
    assert len(row.cells()) == 5


@pytest.mark.variation
def test_the_phases_of_a_cold_start_are_read_from_what_a_lab_prints(
    lab: Lab,  # it runs
    lab_config: Config,
) -> None:
    """The command is `lab up` of a lab that is there: a fresh clone would take a minute."""
    env = {"PATH": os.environ["PATH"], "LAB_HOME": str(lab_config.home)}
    tree = Path(__file__).resolve().parents[2]
    rows = list(measure_command([sys.executable, "-m", "lab", "up"], tree, env, "25 s"))
    whole, rest, *phases = rows
    assert phases[0].what == "  Check this machine and the choices made"
    assert len(phases) > 4
    assert whole.lab == pytest.approx(rest.lab + sum(row.lab for row in phases))
    assert 0 < rest.lab < whole.lab
