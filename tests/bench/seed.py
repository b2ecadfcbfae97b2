"""From the trigger to the pushed commit, against the article's pipeline in the same cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lab.cluster import images
from lab.config import Config
from lab.lab import Lab
from tests.bench.commit import DAG, time_run
from tests.bench.plain import APPEND
from tests.bench.publishing import publishing_dag
from tests.bench.row import Row
from tests.bench.turns import take_turns

SEED = "seed_pipeline"
SOURCE = Path(__file__).with_name(f"{SEED}.py")


def measure_seed(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the medians of both, which take turns; nothing where there is no cluster."""
    if lab.backend != "kind":
        return
    worker = images.read_lock(config)["worker"].name
    text = SOURCE.read_text("utf-8").replace("WORKER_IMAGE", worker)
    text = text.replace("APPEND_PROGRAM", APPEND)
    with publishing_dag(lab, "pipelines", SEED, text):
        ways = partial(time_run, lab, SEED), partial(time_run, lab, DAG)
        seed, ours = take_turns(arguments.rounds, *ways)
    what = "trigger to pushed commit / the article's pipeline"
    yield Row(what, ours, seed, "8 s, ratio 0.25")
