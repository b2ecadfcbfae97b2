"""`nox -s bench`: the lab against plain commands, in one run, as ratios. Asserts nothing."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab.backends import find_backend
from lab.config import Config
from tests.bench.cold_start import measure_cold_start
from tests.bench.commit import measure_commit
from tests.bench.directories import measure_directories
from tests.bench.identity import measure_identity
from tests.bench.promotion import measure_promotion
from tests.bench.row import Row
from tests.bench.seed import measure_seed
from tests.bench.sizes import measure_sizes
from tests.bench.throughput import measure_throughput
from tests.bench.triggers import measure_triggers
from tests.bench.usage import measure_usage

ON_A_LAB: dict[str, Callable[..., Iterable[Row]]] = {
    "commit": measure_commit,
    "seed": measure_seed,
    "identity": measure_identity,
    "sizes": measure_sizes,
    "directories": measure_directories,
    "throughput": measure_throughput,
    "triggers": measure_triggers,
    "usage": measure_usage,
}
CHOICES = ("cold", *ON_A_LAB, "promotion")


def main() -> None:
    """Measure what the options select on one fresh lab, and print the table."""
    parser = argparse.ArgumentParser("nox -s bench --", description=__doc__)
    parser.add_argument("--backend", default="embedded")
    parser.add_argument("--only", choices=CHOICES, action="append", help="leave the others out")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs to take medians of")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--files", type=int, default=3000, help="files of a directory")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32], help="runs at once")
    parser.add_argument(
        "--seconds", type=float, default=60, help="for which an idle lab is watched"
    )
    arguments = parser.parse_args()
    wanted = arguments.only or CHOICES[:-1]  # the promotion needs kubectl, helm and the chart
    table = Table(title=f"{arguments.backend}, {os.cpu_count()} cores, {platform.platform()}")
    for heading in ("what", "lab", "plain", "ratio", "goal"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    try:
        for row in measure(arguments, wanted):
            table.add_row(*row.cells())
            print(f"  {' '.join(row.cells())}", flush=True)
    finally:  # of what failed, too
        Console(width=110).print(table)


def measure(arguments: argparse.Namespace, wanted: Iterable[str]) -> Iterable[Row]:
    """Yield each row as soon as it is measured."""
    if "cold" in wanted:
        yield from measure_cold_start(arguments.backend)
    if "promotion" in wanted:
        yield from measure_promotion(arguments)
    if not set(wanted) & set(ON_A_LAB):
        return
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        choices = Config.from_environment()
        config = replace(choices, home=Path(folder) / "lab", backend=arguments.backend)
        backend = find_backend(arguments.backend)
        try:
            lab = backend.up(config)
            for name, measurement in ON_A_LAB.items():
                if name in wanted:
                    yield from measurement(lab, config, arguments)
        finally:
            backend.down(config, purge=True)


if __name__ == "__main__":
    main()
