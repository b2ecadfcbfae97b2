"""The plan for AWS, against the four renderings in it, made one by one by hand."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from eks import environment, rendering
from lab.backends.kind import stores
from lab.cluster import chart, images, tools
from lab.config import Config
from tests.bench.row import Row

SECONDS = 120


def measure_promotion(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the medians of both, which take turns; none calls AWS."""
    config, staging = Config.from_environment(), environment.load("staging")
    with tempfile.TemporaryDirectory() as folder:
        commands = manual_commands(config, staging, Path(folder))
        plans, plain = [], []
        for _ in range(arguments.rounds):
            plans.append(time_commands([[sys.executable, "-m", "eks", "plan"]]))
            plain.append(time_commands(commands))
    what = "nox -s eks: plan / kubectl and helm, for kind and for EKS"
    yield Row(what, median(plans), median(plain), "5 s")


def manual_commands(
    config: Config, staging: environment.Environment, folder: Path
) -> list[list[str | Path]]:
    """Return the commands that a person would type to see both targets' objects."""
    overlays = (stores.OVERLAY, rendering.OVERLAY)
    known = images.read_lock(config)
    values = (
        rendering.kind_values_files(config, folder / "kind", known),
        rendering.write_values_files(staging, config, folder / "eks"),
    )
    kubectl, helm, packed = tools.find("kubectl"), tools.find("helm"), chart.find(config)
    shown: list[list[str | Path]] = [[kubectl, "kustomize", config.kit / one] for one in overlays]
    return shown + [[helm, "template", packed, *chart.values_flags(files)] for files in values]


def time_commands(commands: Sequence[Sequence[str | Path]]) -> float:
    """Return the seconds that the commands take, one after another."""
    began = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return time.monotonic() - began
