"""Many runs at once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from lab.lab import Lab
from tests.bench.row import Row

DAG = "dataset_pipeline"


def measure_throughput(lab: Lab, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the commits per second with 1, 8 and 32 runs at once, against one run alone."""
    alone = None
    for count in (1, 8, 32):
        began = time.monotonic()
        for run in [lab.trigger(DAG) for _ in range(count)]:
            lab.follow(run)
        rate = count / (time.monotonic() - began)
        yield Row(f"{count} runs at once / one alone", rate, alone, unit="commits/s")
        alone = alone or rate
