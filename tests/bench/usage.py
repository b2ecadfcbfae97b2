"""What a lab takes of the machine: CPU, memory and disk."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from lab.backends.kind import node
from lab.cluster import images
from lab.config import Config
from lab.home import processes
from lab.lab import Lab
from tests.bench.row import Row

GOALS = {"embedded": "9 %", "kind": "a bare node's, and 10 points"}
GB = 10**9
SHARE = "% of a core"
# In the node: nanoseconds of CPU and bytes of memory by cgroup v1, microseconds and bytes by v2.
CPU = (
    "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null"
    " || sed -n 's/^usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat"
)
MEMORY = "cat /sys/fs/cgroup/memory/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory.stat"
ANONYMOUS = ("total_rss", "anon")  # of memory.stat: what no file can give back


def measure_usage(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the CPU of a lab in which nothing runs, its memory, and what it keeps on the disk."""
    before, began = read_cpu(lab, config), time.monotonic()
    time.sleep(arguments.seconds)
    share = (read_cpu(lab, config) - before) / (time.monotonic() - began)
    yield Row("idle: CPU of the whole lab", 100 * share, goal=GOALS[lab.backend], unit=SHARE)
    yield Row("memory", read_memory(lab, config) / GB, unit="GB")
    yield Row("disk: LAB_HOME", measure_folder(config.home) / GB, unit="GB")
    if lab.backend == "kind":
        kept = measure_folder(images.ensure_archive_folder()) / GB
        yield Row("disk: archives of images, which labs share", kept, unit="GB")


def read_cpu(lab: Lab, config: Config) -> float:
    """Return the seconds of CPU that the lab has used so far."""
    if lab.backend == "kind":
        return int(node.run_inside(config, "sh", "-c", CPU)) / 10**9
    total = 0.0
    for process in processes.list_processes(config):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def read_memory(lab: Lab, config: Config) -> int:
    """Return the bytes of memory that only the lab uses."""
    if lab.backend == "kind":
        lines = node.run_inside(config, "sh", "-c", MEMORY).splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] in ANONYMOUS)
    return processes.measure_memory(config)


def measure_folder(folder: Path) -> int:
    """Return the bytes that the files of a folder take on the disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += 0 if path.is_symlink() else path.stat().st_blocks * 512
    return total
