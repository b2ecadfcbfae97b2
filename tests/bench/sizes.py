"""Datasets of several sizes, against the bare cost: one MD5, one copy and one PUT."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.client import s3
from lab.config import Config
from lab.dataset.employees import write_employees
from lab.lab import Lab
from tests.bench.plain import contract, script_environment
from tests.bench.row import Row

DAG_ID = "bench"
SMALL = 10  # megabytes; starting Python, DVC and git costs more than these


def measure_sizes(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield, for each size, a push and a whole run, each against the bare cost."""
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"employees_{megabytes}.csv"
            write_dataset(source, megabytes)
            steps = Steps(lab, config, Path(folder), f"datasets/{source.name}")
            steps("import", str(source))
            bare = time_call(pay_bare_cost, lab, source)
            lab.delete_object(bare_key(source))
            pull, modify = steps("pull", "dataset"), steps("modify")
            publish = steps("publish", "dataset")
            goal = "ratio 4" if megabytes <= SMALL else "ratio 1.5"
            yield Row(f"{megabytes} MB: hash, store, commit / bare", publish, bare, goal)
            whole = pull + modify + publish
            yield Row(f"{megabytes} MB: pull, modify, publish / bare", whole, bare)


def write_dataset(path: Path, megabytes: int) -> None:
    """Write a dataset of that size: the default dataset's records over and over."""
    one = path.with_suffix(".one")
    write_employees(one)
    header, _, records = one.read_bytes().partition(b"\n")
    with path.open("wb") as file:
        file.write(header + b"\n")
        while file.tell() < (megabytes - 5) * 10**6:
            file.write(records)


def pay_bare_cost(lab: Lab, source: Path) -> None:
    """Hash, copy and store the file: no way of versioning it costs less."""
    with source.open("rb") as file:
        hashlib.file_digest(file, "md5")
    shutil.copyfile(source, source.with_suffix(".copy"))
    with source.open("rb") as file:
        s3.create_client(lab).put_object(Bucket=lab.s3_bucket, Key=bare_key(source), Body=file)


def bare_key(source: Path) -> str:
    return f"bench/{source.name}"


def time_call(work: Callable[..., object], *arguments: object) -> float:
    began = time.monotonic()
    work(*arguments)
    return time.monotonic() - began


class Steps:
    """The worker's steps for one dataset of the lab, run as the lab runs them, but one by one."""

    def __init__(self, lab: Lab, config: Config, folder: Path, dataset_path: str) -> None:
        self.env = {
            **contract(config),
            **script_environment(lab, config, folder),
            "DATASET_PATH": dataset_path,
            "SHARED_DIR": str(folder),
            "DAG_ID": DAG_ID,
            "RUN_ID": dataset_path,
        }

    def __call__(self, *arguments: str) -> float:
        """Run a step, whose lines are none of the table's, and return its seconds."""
        command = ["dataset-steps", *arguments]
        began = time.monotonic()
        subprocess.run(command, env=self.env, check=True, stdout=subprocess.DEVNULL, timeout=1800)
        return time.monotonic() - began
