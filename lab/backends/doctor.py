"""What this machine lacks for a lab, and what to do about it. Looks only; changes nothing."""

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
COPIES = 4  # of a dataset: the person's, the object, a run's workspace and the next object
OWN_FOLDER = "choose a folder of your own: LAB_HOME=/path/to/folder"
UNUSABLE = re.compile(r"[?%$#\n]")  # in a path, these change the address of an SQLite database


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: str
    error: LabError | None = None


Looks = Mapping[str, Callable[[Config], str]]


def findings(config: Config, looks: Looks) -> Iterator[Finding]:
    """Yield what each of a backend's looks finds, in their order: what fails first comes first."""
    for name, look in looks.items():
        try:
            yield Finding(name, look(config))
        except LabError as error:
            yield Finding(name, error.what, error)


def refuse_unfit_machine(config: Config, looks: Looks) -> None:
    """Raises the error of the first finding that is one."""
    for finding in findings(config, looks):
        if finding.error:
            raise finding.error


def python(config: Config) -> str:
    """The running Python. Raises MachineError for one that Airflow does not support."""
    found = ".".join(map(str, sys.version_info[:3]))
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise MachineError(
            f"this is Python {found}; the lab needs 3.11 to 3.14",
            "install one of them, then: python3.13 -m pip install nox && python3.13 -m nox -s lab",
        )
    return found


def git(config: Config) -> str:
    """Git's version. Raises MachineError when there is none or it is too old."""
    if not shutil.which("git"):
        raise MachineError("there is no git", "install git 2.31 or newer")
    found = run(["git", "--version"], timeout=30).split()[2]
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST_GIT:
        raise MachineError(f"git is {found}; the lab needs 2.31 or newer", "install a newer git")
    if not Path(run(["git", "--exec-path"], timeout=30).strip(), "git-http-backend").exists():
        raise MachineError("git has no http-backend", "install your system's full git package")
    return found


def home(config: Config) -> str:
    """Where the lab is kept. Raises HomeError when it can't be there."""
    if UNUSABLE.search(str(config.home)):
        raise HomeError(
            f"{config.home} holds one of ? % $ #, which Airflow can't have in a database's path",
            "choose another LAB_HOME",
        )
    place = nearest(config)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise HomeError(f"{place} can't be written", OWN_FOLDER)
    state.read(config)
    return str(config.home)


def nearest(config: Config) -> Path:
    """The home, or the folder above it that is there. Raises HomeError when nobody may look."""
    try:
        return next(p for p in (config.home, *config.home.parents) if p.exists())
    except OSError as error:
        raise HomeError(f"{config.home} can't be reached: {error.strerror}", OWN_FOLDER) from error


def disk(config: Config) -> str:
    """The room on the lab's disk. Raises DiskError when it is too little."""
    place = nearest(config)
    free = shutil.disk_usage(place).free
    needed = DISK + COPIES * size_of(config.dataset)
    if free < needed:
        raise DiskError(
            f"{gigabytes(free)} free at {place}; the lab needs {gigabytes(needed)}",
            "make room, or choose another disk: LAB_HOME=/path/to/folder",
        )
    return f"{gigabytes(free)} free"


def size_of(source: Path | None) -> int:
    return source.stat().st_size if source and source.is_file() else employees.EMPLOYEES_SIZE


def memory(config: Config) -> str:
    """The memory to be had or taken by the lab. Raises MachineError when it is too little."""
    free = psutil.virtual_memory().available + processes.memory(config)  # `up` twice is harmless
    if free < MEMORY:
        raise MachineError(
            f"{gigabytes(free)} of memory available; the lab needs {gigabytes(MEMORY)}",
            "end other programs",
        )
    return f"{gigabytes(free)} available"


def own_dataset(config: Config) -> str:
    """The CSV that a person brought. Raises DatasetError when it can't be versioned."""
    if config.dataset is None:
        return "the generated one"
    shape = inspection.inspect(config.dataset)
    return f"{shape.records} records of {len(shape.columns)} columns"


def gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
