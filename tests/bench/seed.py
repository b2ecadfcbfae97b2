"""From the trigger to the pushed commit, against the article's pipeline in the same cluster."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from lab.client import runs
from lab.client.git import git
from lab.cluster import images
from lab.lab import Lab
from tests.bench.commit import DAG, one_run
from tests.bench.row import Row

SEED = "seed_pipeline"
SOURCE = Path(__file__).with_name(f"{SEED}.py")


def against_the_seed(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Medians of rounds in which both take turns; the first round is not counted."""
    if lab.backend != "kind":
        return
    ours, seeds = [], []
    with published(lab):
        for _ in range(arguments.rounds + 1):
            seeds.append(one_run(lab, SEED))
            ours.append(one_run(lab, DAG))
    what = "trigger to pushed commit / the article's pipeline"
    yield Row(what, median(ours[1:]), median(seeds[1:]), "15 s, ratio 0.5")


@contextmanager
def published(lab: Lab) -> Iterator[None]:
    """Airflow knows the article's pipeline; afterwards the repository has it no more."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "pipelines"
        url = lab.git_url.replace("datasets.git", "pipelines.git")
        git(lab, "clone", "--quiet", url, clone, cwd=Path(folder))
        text = SOURCE.read_text("utf-8").replace("WORKER_IMAGE", images.locked()["worker"].name)
        file = clone / "dags" / SOURCE.name
        file.write_text(text, "utf-8")
        runs.await_dag(lab, SEED, push(lab, clone), 60)
        yield
        file.unlink()
        push(lab, clone)


def push(lab: Lab, clone: Path) -> str:
    """The commit of what the clone holds now; the server has it."""
    git(lab, "add", "--all", cwd=clone)
    git(lab, "commit", "--quiet", "--message", "measure", cwd=clone)
    git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return git(lab, "rev-parse", "HEAD", cwd=clone).strip()
