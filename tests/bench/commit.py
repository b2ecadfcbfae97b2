"""From the trigger to the pushed commit, against a shell script that does the same."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from lab.client.git import run_git
from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.bench.plain import run_script
from tests.bench.row import Row

DAG = "dataset_pipeline"


def measure_commit(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the medians of rounds in which both take turns, without the first round."""
    ours, plain = [], []
    for _ in range(arguments.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            run_script(lab, Path(folder))
            plain.append(time.monotonic() - began)
        ours.append(time_run(lab, DAG))
    what = "trigger to pushed commit / shell script"
    goal = "ratio 0.7" if lab.backend == "embedded" else "15 s"
    yield Row(what, median(ours[1:]), median(plain[1:]), goal)


def time_run(lab: Lab, dag_id: str) -> float:
    """Return the seconds from the trigger until the git server has the run's commit."""
    before = read_tip(lab)
    began = time.monotonic()
    run = lab.trigger(dag_id)

    def require_new_tip() -> None:
        if read_tip(lab) == before:
            raise NotYet("no commit yet")

    wait_until(require_new_tip, what="the commit", timeout=120, interval=0.05)
    seconds = time.monotonic() - began
    lab.follow(run)
    return seconds


def read_tip(lab: Lab) -> str:
    return run_git(lab, "ls-remote", lab.git_url, "refs/heads/main", cwd=Path("/"))
