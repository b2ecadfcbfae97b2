"""The plan for AWS beside the four renderings that it has to make, one by one, by hand."""

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
from lab.backends.kind import backend as kind
from lab.cluster import chart, images, tools
from lab.config import Config
from tests.bench.row import Row

SECONDS = 120


def promotion(arguments: argparse.Namespace) -> Iterator[Row]:
    """Medians of both, taken in turns; nothing is asked of AWS."""
    config, staging = Config.from_environment(), environment.load("staging")
    with tempfile.TemporaryDirectory() as folder:
        commands = by_hand(config, staging, Path(folder))
        plans, plain = [], []
        for _ in range(arguments.rounds):
            plans.append(seconds([[sys.executable, "-m", "eks", "plan"]]))
            plain.append(seconds(commands))
    what = "nox -s eks: plan / kubectl and helm, for kind and for EKS"
    yield Row(what, median(plans), median(plain), "5 s")


def by_hand(
    config: Config, staging: environment.Environment, folder: Path
) -> list[list[str | Path]]:
    """What a person would type to see both targets' objects."""
    overlays = (kind.OVERLAY, rendering.OVERLAY)
    known = images.locked(config.tree)
    values = (
        rendering.kind_values(config, folder / "kind", known),
        rendering.values(staging, config.tree, folder / "eks"),
    )
    kubectl, helm, packed = tools.find("kubectl"), tools.find("helm"), chart.find(config)
    shown: list[list[str | Path]] = [[kubectl, "kustomize", config.tree / one] for one in overlays]
    return shown + [[helm, "template", packed, *chart.flags(files)] for files in values]


def seconds(commands: Sequence[Sequence[str | Path]]) -> float:
    """How long they took, one after the other."""
    began = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return time.monotonic() - began
