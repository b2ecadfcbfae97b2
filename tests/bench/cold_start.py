"""From `nox -s lab` in a fresh clone to the proven commit, with a warm package cache."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.row import Row

TREE = Path(__file__).resolve().parents[2]
GOALS = {"embedded": "45 s", "kind": "150 s"}
PHASE = re.compile(r"^\S+ (.+?)\s+(\d+\.\d) s$", re.MULTILINE)


def measure_cold_start(backend: str) -> Iterator[Row]:
    """Yield the total seconds, then those of each phase."""
    with tempfile.TemporaryDirectory(prefix="lab-cold-") as folder:
        clone = Path(folder) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(TREE), str(clone)], check=True, timeout=60)
        env = {k: v for k, v in os.environ.items() if k not in {"LAB_HOME", "VIRTUAL_ENV"}}
        env |= {"LAB_BACKEND": backend}
        nox = [sys.executable, "-m", "nox", "-s", "lab"]
        try:
            began = time.monotonic()
            output = subprocess.run(
                nox, cwd=clone, env=env, check=True, capture_output=True, text=True, timeout=900
            ).stdout
            whole = time.monotonic() - began
        finally:
            down = [*nox, "--", "down", "--purge"]
            subprocess.run(down, cwd=clone, env=env, capture_output=True, check=False, timeout=120)
    yield Row("nox -s lab to the proven commit", whole, goal=GOALS[backend])
    phases = [(name, float(number)) for name, number in PHASE.findall(output)]
    yield Row("  environment, imports and proof", whole - sum(s for _, s in phases))
    for name, number in phases:
        yield Row(f"  {name}", number)
