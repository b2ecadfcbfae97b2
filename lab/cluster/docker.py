"""The docker command line: the engine, and its images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import cache
from lab.errors import LabError, MachineError
from lab.shell import run

ASK_SECONDS = 30
PULL_SECONDS = 1800
BUILD_SECONDS = 1800  # the MinIO server takes four minutes on two cores
SAVE_SECONDS = 600
START = "start Docker, or use the lab without it: --backend embedded"


@dataclass(frozen=True)
class Engine:
    """The engine behind the `docker` command."""

    version: str
    memory: int  # bytes
    cpus: int
    cgroup: str


def inspect_engine() -> Engine:
    """Return the running engine. Raises MachineError if none runs or this user may not use it."""
    if not shutil.which("docker"):
        raise MachineError(
            "there is no docker", "install Docker, or use the lab without it: --backend embedded"
        )
    try:
        return parse_engine(docker("info", "--format", "{{json .}}"))
    except LabError as error:
        why = error.what.splitlines()[-1].strip()  # the lines before are JSON of no engine
        raise MachineError(f"Docker does not answer: {why}", START) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError("what answers as docker is no Docker", START) from error


def parse_engine(text: str) -> Engine:
    """Parse `docker info`. Raises LabError, ValueError, KeyError and TypeError."""
    said = json.loads(text)
    if problems := said.get("ServerErrors"):
        raise LabError("; ".join(problems), START)
    return Engine(
        said["ServerVersion"], said["MemTotal"], said["NCPU"], str(said.get("CgroupVersion", "?"))
    )


def docker(*arguments: str | Path, timeout: float = ASK_SECONDS, fix: str = START) -> str:
    """Run docker and return what it printed. Raises LabError."""
    return run(["docker", *arguments], timeout=timeout, fix=fix)


def image_id(name: str) -> str | None:
    """Return the image's ID, which changes with its content, or None if there is no such image."""
    try:
        return docker("image", "inspect", "--format", "{{.Id}}", name).strip()
    except LabError as error:
        if "No such image" in error.what or "not found" in error.what:
            return None
        raise


def list_digests(name: str) -> list[str]:
    """List the image's registry digests; an image that was built here has none."""
    said = docker("image", "inspect", "--format", "{{json .RepoDigests}}", name)
    return [entry.partition("@")[2] for entry in json.loads(said) or []]


def pull(name: str, digest: str | None) -> None:
    """Pull the image `name`, by digest if one is given. Raises LabError."""
    fix = f"bring it to this machine: docker pull {name}"
    if digest is None:
        docker("pull", "--quiet", name, timeout=PULL_SECONDS, fix=fix)
        return
    pinned = f"{name.rpartition(':')[0]}@{digest}"
    docker("pull", "--quiet", pinned, timeout=PULL_SECONDS, fix=fix)
    docker("tag", pinned, name)


def build(folder: Path, name: str, arguments: Mapping[str, str]) -> None:
    """Build the image `name` from the folder's Dockerfile. Raises LabError."""
    given = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
    fix = f"read the output above; it was made by: docker build {folder}"
    docker("build", "--tag", name, *given, folder, timeout=BUILD_SECONDS, fix=fix)


def save(name: str, archive: Path) -> None:
    """Save the image to `archive`, atomically."""
    with cache.replacing(archive) as part:
        docker("save", "--output", part, name, timeout=SAVE_SECONDS, fix="make room on the disk")
