"""Many runs at once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from lab.config import Config
from lab.lab import Lab
from tests.bench.row import Row
from tests.bench.usage import read_cpu

DAG = "dataset_pipeline"
MANY = 32
GOALS = {"embedded": "0.8", "kind": "0.25"}  # commits per second, of so many at once


def measure_throughput(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the commits per second of each number of runs at once, against the first number.

    After each, the seconds of CPU that one of the runs took of the whole lab.
    """
    first = None
    for count in arguments.at_once:
        began, cpu = time.monotonic(), read_cpu(lab, config)
        for run in [lab.trigger(DAG) for _ in range(count)]:
            lab.follow(run)
        rate = count / (time.monotonic() - began)
        against = f" / {arguments.at_once[0]}" if first else ""
        goal = GOALS[lab.backend] if count == MANY else ""
        yield Row(f"runs at once: {count}{against}", rate, first, goal, unit="commits/s")
        yield Row("  CPU of one of them", (read_cpu(lab, config) - cpu) / count)
        first = first or rate
