"""Checks of this machine for a lab, each with its fix. They change nothing."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.config import Config
from lab.dataset import employees, inspection
from lab.errors import DiskError, HomeError, LabError, MachineError
from lab.home import processes, state
from lab.shell import run

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)  # what Airflow 3.3.2 supports
OLDEST_GIT = (2, 31)  # GIT_CONFIG_COUNT, which keeps passwords out of arguments
MEMORY = 2 * 2**30  # bytes; a lab takes about 1.3 GB
DISK = 2**30  # bytes, beside the dataset's own
COPIES = 4  # of a dataset: the user's, the object, a run's workspace and the next object
OWN_FOLDER = "choose a folder of your own: LAB_HOME=/path/to/folder"
UNUSABLE = re.compile(r"[?%$#\n]")  # in a path, these change the URL of an SQLite database


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: str
    error: LabError | None = None


Checks = Mapping[str, Callable[[Config], str]]


def run_checks(config: Config, checks: Checks) -> Iterator[Finding]:
    """Run a backend's checks and yield the finding of each, in their order."""
    for name, check in checks.items():
        try:
            yield Finding(name, check(config))
        except LabError as error:
            yield Finding(name, error.what, error)


def refuse_unfit_machine(config: Config, checks: Checks) -> None:
    """Raise the error of the first check that fails."""
    for finding in run_checks(config, checks):
        if finding.error:
            raise finding.error


def check_python(config: Config) -> str:
    """Return the running Python's version. Raises MachineError if Airflow does not support it."""
    found = ".".join(map(str, sys.version_info[:3]))
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise MachineError(
            f"this is Python {found}; the lab needs 3.11 to 3.14",
            "install one of them, then: python3.13 -m pip install nox && python3.13 -m nox -s lab",
        )
    return found


def check_git(config: Config) -> str:
    """Return git's version. Raises MachineError when git is missing, incomplete or too old."""
    if not shutil.which("git"):
        raise MachineError("there is no git", "install git 2.31 or newer")
    found = run(["git", "--version"], timeout=30).split()[2]
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST_GIT:
        raise MachineError(f"git is {found}; the lab needs 2.31 or newer", "install a newer git")
    if not Path(run(["git", "--exec-path"], timeout=30).strip(), "git-http-backend").exists():
        raise MachineError("git has no http-backend", "install your system's full git package")
    return found


def check_home(config: Config) -> str:
    """Return the lab's home. Raises HomeError when a lab can't be there."""
    if UNUSABLE.search(str(config.home)):
        raise HomeError(
            f"{config.home} holds one of ? % $ #, which Airflow can't have in a database's path",
            "choose another LAB_HOME",
        )
    place = nearest_folder(config)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise HomeError(f"{place} can't be written", OWN_FOLDER)
    state.read_state(config)
    return str(config.home)


def nearest_folder(config: Config) -> Path:
    """Return the home or its nearest existing parent. Raises HomeError when it can't be reached."""
    try:
        return next(p for p in (config.home, *config.home.parents) if p.exists())
    except OSError as error:
        raise HomeError(f"{config.home} can't be reached: {error.strerror}", OWN_FOLDER) from error


def check_disk(config: Config) -> str:
    """Return the free space on the lab's disk. Raises DiskError when it is too little."""
    place = nearest_folder(config)
    free = shutil.disk_usage(place).free
    needed = DISK + COPIES * measure_data(config)
    if free < needed:
        raise DiskError(
            f"{to_gigabytes(free)} free at {place}; the lab needs {to_gigabytes(needed)}",
            "make room, or choose another disk: LAB_HOME=/path/to/folder",
        )
    return f"{to_gigabytes(free)} free"


def measure_data(config: Config) -> int:
    """Return the bytes of the first versions that a lab begins with; of the generated one at least.

    What is not there is no matter here: another check says so.
    """
    given = [each.first for each in config.project.data.values() if each.first]
    sources = [config.dataset] if config.dataset else [config.root / first for first in given]
    files = [file for source in sources for file in (source, *source.rglob("*"))]
    size = sum(file.lstat().st_size for file in files if file.is_file())
    return max(size, employees.EMPLOYEES_SIZE)


def check_memory(config: Config) -> str:
    """Return the memory that is free or used by this lab. Raises MachineError for too little."""
    # What this lab uses counts as free: a second `up` needs no more.
    free = psutil.virtual_memory().available + processes.measure_memory(config)
    if free < MEMORY:
        raise MachineError(
            f"{to_gigabytes(free)} of memory available; the lab needs {to_gigabytes(MEMORY)}",
            "end other programs",
        )
    return f"{to_gigabytes(free)} available"


def check_dataset(config: Config) -> str:
    """Return the size of the user's data. Raises DatasetError when it can't be versioned."""
    return str(inspection.inspect(config.dataset)) if config.dataset else "what lab.toml declares"


def to_gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
