"""Kill services and steps at random moments during runs: no version is lost or doubled.

`pytest tests/faults --kills 200 --seed 7`; a smaller round is part of `nox -s tests`.
"""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest

from lab.lab import Lab
from lab.model import Run, Version
from tests.support.control import Control
from tests.support.dag_runs import requested_run_ids

DAG = "dataset_pipeline"
KILLS_PER_RUN = 2
PART_SHARE = 0.7  # of kills that hit a step or a worker, if there is one
RUN_SECONDS = 1800


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return the random generator of the kills; print its seed to repeat a failed round with."""
    seed = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"\nseed: {seed}")
    return random.Random(seed)


@pytest.mark.sweep
@pytest.mark.timeout(0)  # its kills take as long as they take; each run has its own deadline
def test_after_kills_at_random_moments_each_run_has_made_one_version(
    lab: Lab, control: Control, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    kills = request.config.getoption("--kills")
    pace = time_run(lab)
    before = lab.history()
    started: list[Run] = []
    for number in range(kills):
        if number % KILLS_PER_RUN == 0:
            control.restore()
            started.append(lab.trigger(DAG))
        time.sleep(chance.uniform(0, pace))  # the moment of the kill: not a wait for anything
        victim = choose_victim(control, chance)
        control.kill(victim)
        print(f"kill {number + 1}/{kills}: {victim}", flush=True)
    control.restore()
    for run in started:
        lab.follow(run, RUN_SECONDS)
    prove_nothing_lost_or_doubled(lab, before, started)


@pytest.mark.timeout(0)
def test_after_a_power_cut_each_run_is_completed(
    lab: Lab, control: Control, chance: random.Random
) -> None:
    pace = time_run(lab)
    before = lab.history()
    started = [lab.trigger(DAG), lab.trigger(DAG)]
    time.sleep(chance.uniform(0, pace))  # the moment of the cut
    control.cut_power()
    control.restore()
    for run in started:
        lab.follow(run, RUN_SECONDS)
    prove_nothing_lost_or_doubled(lab, before, started)


def time_run(lab: Lab) -> float:
    """Return the seconds of an undisturbed run."""
    began = time.monotonic()
    lab.run(DAG)
    return time.monotonic() - began


def choose_victim(control: Control, chance: random.Random) -> str:
    """Choose a running step, a worker of a service, or a whole service."""
    parts = control.list_parts()
    if parts and chance.random() < PART_SHARE:
        return chance.choice(parts)
    return chance.choice(control.list_services())


def prove_nothing_lost_or_doubled(lab: Lab, before: list[Version], started: list[Run]) -> None:
    after = lab.history()
    made = after[: len(after) - len(before)]
    assert after[len(made) :] == before
    assert requested_run_ids(made) == sorted(run.id for run in started)
    assert lab.verify().parents_checked == len(after) - 1
    contents = [read_object(lab, version) for version in reversed(after)]
    for version, content in zip(reversed(after), contents, strict=True):
        assert len(content) == version.size
    for parent, child in pairwise(contents):
        assert child.startswith(parent)
        assert len(child[len(parent) :].splitlines()) == 1


def read_object(lab: Lab, version: Version) -> bytes:
    """Return the bytes of a version's object, straight from the bucket."""
    return lab.read_object(lab.object_key(version.md5))
