"""From `nox -s lab` in a fresh clone to the proven commit, with a warm package cache."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lab.shell import run
from tests.bench.row import Row

TREE = Path(__file__).resolve().parents[2]
GOALS = {"embedded": "25 s", "kind": "80 s"}
AGAIN = {"embedded": "8 s", "kind": "40 s"}
PHASE = re.compile(r"^\S+ (.+?)\s+(\d+\.\d) s$", re.MULTILINE)
# What belongs to the lab that the person may have, and to the session that measures.
NOT_FRESH = {"LAB_HOME", "LAB_DATABASE", "VIRTUAL_ENV", "PYTHONPATH", "NOX_CURRENT_SESSION"}


def measure_cold_start(backend: str) -> Iterator[Row]:
    """Yield the total seconds, then those of each phase; and those of `lab down` and `lab up`.

    What is not committed is left out.
    """
    with tempfile.TemporaryDirectory(prefix="lab-cold-") as folder:
        clone = Path(folder) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(TREE), str(clone)], check=True, timeout=60)
        env = {k: v for k, v in os.environ.items() if k not in NOT_FRESH}
        env |= {"LAB_BACKEND": backend}
        nox = [sys.executable, "-m", "nox", "-s", "lab"]
        try:
            yield from measure_command(nox, clone, env, GOALS[backend])
            yield from measure_again(
                [str(clone / ".nox/lab/bin/python"), "-m", "lab"], clone, env, backend
            )
        finally:
            down = [*nox, "--", "down", "--purge"]
            subprocess.run(down, cwd=clone, env=env, capture_output=True, check=False, timeout=120)


def measure_again(
    lab: Sequence[str], folder: Path, env: Mapping[str, str], backend: str
) -> Iterator[Row]:
    """End the lab and bring it up again on its data; yield the seconds of both."""
    seconds = []
    for command in ("down", "up"):
        began = time.monotonic()
        run([*lab, command], cwd=folder, env=env, timeout=300)
        seconds.append(time.monotonic() - began)
    # Of the embedded lab the goal is that of `up` alone.
    yield Row("lab down", seconds[0], goal="" if backend == "embedded" else AGAIN[backend])
    yield Row("lab up, on the same data", seconds[1], goal=AGAIN[backend])


def measure_command(
    command: Sequence[str], folder: Path, env: Mapping[str, str], goal: str
) -> Iterator[Row]:
    """Run what brings a lab up and proves a run; yield its seconds, then those of each phase."""
    began = time.monotonic()
    output = run(command, cwd=folder, env=env, timeout=900)
    whole = time.monotonic() - began
    phases = [(name, float(number)) for name, number in PHASE.findall(output)]
    assert phases, output
    yield Row("nox -s lab to the proven commit", whole, goal=goal)
    yield Row("  environment, imports and proof", whole - sum(s for _, s in phases))
    for name, number in phases:
        yield Row(f"  {name}", number)
