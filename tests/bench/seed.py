"""From the trigger to the pushed commit, against the article's pipeline in the same cluster."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from lab.client import runs
from lab.client.git import run_git
from lab.cluster import images
from lab.lab import Lab
from tests.bench.commit import DAG, time_run
from tests.bench.row import Row

SEED = "seed_pipeline"
SOURCE = Path(__file__).with_name(f"{SEED}.py")


def measure_seed(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the medians of rounds in which both take turns, without the first round."""
    if lab.backend != "kind":
        return
    ours, seeds = [], []
    with publishing_seed(lab):
        for _ in range(arguments.rounds + 1):
            seeds.append(time_run(lab, SEED))
            ours.append(time_run(lab, DAG))
    what = "trigger to pushed commit / the article's pipeline"
    yield Row(what, median(ours[1:]), median(seeds[1:]), "15 s, ratio 0.5")


@contextmanager
def publishing_seed(lab: Lab) -> Iterator[None]:
    """Push the article's pipeline and wait until Airflow knows it; remove it after the block."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "pipelines"
        url = lab.git_url.replace("datasets.git", "pipelines.git")
        run_git(lab, "clone", "--quiet", url, clone, cwd=Path(folder))
        text = SOURCE.read_text("utf-8").replace("WORKER_IMAGE", images.read_lock()["worker"].name)
        file = clone / "dags" / SOURCE.name
        file.write_text(text, "utf-8")
        runs.wait_for_dag(lab, SEED, push(lab, clone), 60)
        yield
        file.unlink()
        push(lab, clone)


def push(lab: Lab, clone: Path) -> str:
    """Commit what the clone holds, push it and return the commit."""
    run_git(lab, "add", "--all", cwd=clone)
    run_git(lab, "commit", "--quiet", "--message", "measure", cwd=clone)
    run_git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return run_git(lab, "rev-parse", "HEAD", cwd=clone).strip()
