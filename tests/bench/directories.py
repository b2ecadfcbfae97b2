"""Directories of many small files: their transfers beside s5cmd, a commit beside git and dvc."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dataset_steps.contract import run_key
from lab.config import Config
from lab.lab import Lab
from tests.bench.plain import script_environment
from tests.bench.row import Row
from tests.bench.sizes import DAG_ID, Steps
from tests.bench.turns import take_turns

SIZE = 4096  # bytes of a file
SERIAL = itertools.count(time.time_ns())  # no round finds what another has stored

# Both begin with nothing and end with a pushed commit that names a directory.
SCRIPT = """
set -eu
git clone --quiet "$GIT_URL" work
cd work
mkdir -p bench
cp -r "$SOURCE" "$DATASET"
dvc add --quiet "$DATASET"
dvc push --quiet "$DATASET.dvc"
git add "$DATASET.dvc" bench/.gitignore
git commit --quiet --message "plain"
git push --quiet origin HEAD:main
"""
# Prints the seconds of both transfers: not those of starting Python, which a run has behind it.
TRANSFERS = """
import sys, time
from pathlib import Path
from dataset_steps import pointer, preload
from dataset_steps.remote import Remote
clone = Path(sys.argv[1])
remote = Remote(clone)
content = remote.measure("data", clone / "data")
pointer.write(clone / "data.dvc", content.pointer)
began = time.monotonic()
remote.store(content, clone / "data")
remote.download(content.pointer, "data", clone / "again")
print(time.monotonic() - began)
"""


def measure_directories(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the transfers of a directory and its first commit, each beside the plain way."""
    count, rounds = arguments.files, arguments.rounds
    ways = partial(time_transfers, lab, config, count), partial(time_s5cmd, lab, config, count)
    ours, plain = take_turns(rounds, *ways)
    yield Row(f"{count} files of 4 KiB: put and get / s5cmd", ours, plain, "ratio 1.5")
    ways = partial(time_steps, lab, config, count), partial(time_script, lab, config, count)
    ours, plain = take_turns(rounds, *ways)
    yield Row(f"{count} files of 4 KiB: cold directory commit / shell script", ours, plain)


def write_files(folder: Path, count: int) -> Path:
    """Make a directory of files that no other round has."""
    chance = random.Random(next(SERIAL))
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06}.bin").write_bytes(chance.randbytes(SIZE))
    return folder


def time_transfers(lab: Lab, config: Config, count: int) -> float:
    """Store a directory and fetch it by the steps' code; return the seconds of both."""
    with tempfile.TemporaryDirectory() as name:
        clone, env = Path(name) / "clone", script_environment(lab, config, Path(name))
        write_files(clone / "data", count)
        (clone / ".dvc").mkdir()
        url = f"url = s3://{lab.s3_bucket}/store/bench"
        text = "\n".join(["[core]", "remote = s3", "['remote \"s3\"']", url, ""])
        (clone / ".dvc" / "config").write_text(text, "utf-8")
        subprocess.run(["git", "init", "--quiet"], cwd=clone, env=env, check=True)
        words = [sys.executable, "-c", TRANSFERS, str(clone)]
        done = subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, timeout=1800)
        return float(done.stdout.split()[-1])


def time_s5cmd(lab: Lab, config: Config, count: int) -> float:
    """Store a directory and fetch it by s5cmd; return the seconds of both."""
    with tempfile.TemporaryDirectory() as name:
        env = script_environment(lab, config, Path(name))
        source, there = write_files(Path(name) / "data", count), f"store/bench/{next(SERIAL)}"
        url = f"s3://{lab.s3_bucket}/{there}"
        endpoint = ["--endpoint-url", lab.s3_endpoint] if lab.s3_endpoint else []
        began = time.monotonic()
        for pair in ([f"{source}/", f"{url}/"], [f"{url}/*", f"{name}/again/"]):
            words = ["s5cmd", "--log", "error", *endpoint, "cp", *pair]
            subprocess.run(words, env=env, check=True, timeout=1800)
        return time.monotonic() - began


def time_steps(lab: Lab, config: Config, count: int) -> float:
    """Publish a new directory by the steps, one by one; return the seconds that it took."""
    with tempfile.TemporaryDirectory() as name:
        source, path = write_files(Path(name) / "source", count), f"bench/{next(SERIAL)}"
        steps = Steps(lab, config, Path(name), path)
        began = time.monotonic()
        steps("pull", "dataset", "--optional")
        shutil.copytree(source, Path(name, "runs", run_key(DAG_ID, path), "repository", path))
        steps("publish", "dataset")
        return time.monotonic() - began


def time_script(lab: Lab, config: Config, count: int) -> float:
    """Publish a new directory by git and dvc alone; return the seconds that it took."""
    with tempfile.TemporaryDirectory() as name:
        source, path = write_files(Path(name) / "source", count), f"bench/{next(SERIAL)}"
        env = script_environment(lab, config, Path(name))
        env |= {"SOURCE": os.fspath(source), "DATASET": path}
        began = time.monotonic()
        subprocess.run(["sh", "-c", SCRIPT], cwd=name, env=env, check=True, timeout=1800)
        return time.monotonic() - began
