"""From the trigger to the pushed commit, against a shell script that makes the same."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from lab.client.git import git
from lab.lab import Lab
from lab.wait import NotYet, until
from tests.bench.plain import run_script
from tests.bench.row import Row

DAG = "dataset_pipeline"


def trigger_to_commit(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Medians of rounds in which both take turns; the first round is not counted."""
    ours, plain = [], []
    for _ in range(arguments.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            run_script(lab, Path(folder))
            plain.append(time.monotonic() - began)
        ours.append(one_run(lab, DAG))
    what = "trigger to pushed commit / shell script"
    goal = "ratio 0.7" if lab.backend == "embedded" else "15 s"
    yield Row(what, median(ours[1:]), median(plain[1:]), goal)


def one_run(lab: Lab, dag_id: str) -> float:
    """Seconds from the trigger until the git server has the run's commit."""
    before = tip(lab)
    began = time.monotonic()
    run = lab.trigger(dag_id)

    def moved() -> None:
        if tip(lab) == before:
            raise NotYet("no commit yet")

    until(moved, what="the commit", timeout=120, interval=0.05)
    seconds = time.monotonic() - began
    lab.follow(run)
    return seconds


def tip(lab: Lab) -> str:
    return git(lab, "ls-remote", lab.git_url, "refs/heads/main", cwd=Path("/"))
