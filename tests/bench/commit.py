"""From the trigger to the pushed commit, against a shell script that does the same."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lab.client.git import run_git
from lab.config import Config
from lab.errors import ServiceError
from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.bench.plain import time_script
from tests.bench.row import Row
from tests.bench.turns import take_turns

DAG = "dataset_pipeline"


def measure_commit(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the medians of both, which take turns on the same branch."""
    ways = partial(time_script, lab, config), partial(time_run, lab, DAG)
    plain, ours = take_turns(arguments.rounds, *ways)
    what = "trigger to pushed commit / shell script"
    yield Row(what, ours, plain, "ratio 0.4" if lab.backend == "embedded" else "8 s")


def time_run(lab: Lab, dag_id: str) -> float:
    """Return the seconds from the trigger until the git server has the run's commit."""
    before = read_tip(lab)
    began = time.monotonic()
    run = lab.trigger(dag_id)

    def require_new_tip() -> None:
        if read_tip(lab) == before:
            raise NotYet("no commit yet")

    try:
        wait_until(require_new_tip, what="the commit", timeout=120, interval=0.05)
    except ServiceError:
        lab.follow(run, timeout=1)  # raises what the run itself says
        raise
    seconds = time.monotonic() - began
    lab.follow(run)
    return seconds


def read_tip(lab: Lab) -> str:
    return run_git(lab, "ls-remote", lab.git_url, "refs/heads/main", cwd=Path("/"))
