"""Many runs at once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from lab.config import Config
from lab.lab import Lab
from tests.bench.row import Row

DAG = "dataset_pipeline"


def measure_throughput(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the commits per second of each number of runs at once, against the first number."""
    first = None
    for count in arguments.at_once:
        began = time.monotonic()
        for run in [lab.trigger(DAG) for _ in range(count)]:
            lab.follow(run)
        rate = count / (time.monotonic() - began)
        against = f" / {arguments.at_once[0]}" if first else ""
        yield Row(f"runs at once: {count}{against}", rate, first, unit="commits/s")
        first = first or rate
