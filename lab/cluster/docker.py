"""The docker command line: the engine, and its images."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import tarfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import cache
from lab.errors import LabError, MachineError
from lab.reasons import find_reason
from lab.shell import run

ASK_SECONDS = 30
PULL_SECONDS = 1800
BUILD_SECONDS = 1800  # the MinIO server takes four minutes on two cores
SAVE_SECONDS = 600
EMBEDDED = ", or use the lab without it: --backend embedded"
START = f"start Docker{EMBEDDED}"
PLATFORM = "DOCKER_DEFAULT_PLATFORM"  # by which Docker builds and pulls for another machine
# The kinds of machines that others name otherwise than Docker.
ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
GROUP = "docker"  # whose members may open the engine's socket
# What the command line says of an engine that it can't reach.
DENIED = re.compile(r"permission denied while trying to connect to the docker", re.IGNORECASE)
SILENT = re.compile(
    r"(?:cannot connect to the docker daemon|failed to connect to the docker api)"
    r"(?: at (?P<place>[^\s;]+?)(?:;|\.?\s|\.?$))?",
    re.IGNORECASE,
)
CONTEXT = re.compile(r'context "?(?P<name>[^"\s]+?)"?(?:: context not found| is not found)')


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
        raise MachineError("there is no docker", f"install Docker{EMBEDDED}")
    try:
        return parse_engine(docker("info", "--format", "{{json .}}"))
    except MachineError:
        raise
    except LabError as error:
        why = find_reason(error.output) or error.what
        raise MachineError(f"Docker does not answer: {why}", START) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError("what answers as docker is no Docker", START) from error


def parse_engine(text: str) -> Engine:
    """Parse `docker info`. Raises MachineError, ValueError, KeyError and TypeError."""
    said = json.loads(text)
    if problems := said.get("ServerErrors"):
        found = "; ".join(problems)
        error = find_unreachable(found) or MachineError(f"Docker does not answer: {found}", START)
        error.program, error.output = "docker", "\n".join(problems)
        raise error
    if "ServerVersion" not in said and "host" in said:
        raise MachineError("docker is Podman here, which has no kind", f"install Docker{EMBEDDED}")
    return Engine(
        said["ServerVersion"], said["MemTotal"], said["NCPU"], str(said.get("CgroupVersion", "?"))
    )


def docker(*arguments: str | Path, timeout: float = ASK_SECONDS, fix: str = START) -> str:
    """Run docker and return what it printed.

    Raises MachineError when it can't reach its engine, else LabError.
    """
    try:
        return run(["docker", *arguments], timeout=timeout, fix=fix)
    except LabError as error:
        if unreachable := find_unreachable(error.what):
            raise unreachable from error
        raise


def find_unreachable(said: str) -> MachineError | None:
    """Return why the command line can't reach its engine, and what to do; None if it can."""
    host, context = os.environ.get("DOCKER_HOST"), os.environ.get("DOCKER_CONTEXT")
    if DENIED.search(said):
        return MachineError("this user may not use Docker", f"{describe_way_in()}{EMBEDDED}")
    if found := SILENT.search(said):
        where = f" at {found['place']}" if found["place"] else ""
        named = f"start it, or unset DOCKER_HOST, which names it{EMBEDDED}" if host else START
        return MachineError(f"no Docker answers{where}", named)
    if found := CONTEXT.search(said):
        other = "unset DOCKER_CONTEXT" if context else "docker context use default"
        return MachineError(f"docker has no context {found['name']!r}", f"{other}{EMBEDDED}")
    return None


def describe_way_in() -> str:
    """Return how this user comes to use Docker: a session knows the groups of its beginning."""
    with suppress(KeyError):  # no such group, or a user without a name
        group = grp.getgrnam(GROUP)
        user = pwd.getpwuid(os.getuid()).pw_name
        if user in group.gr_mem and group.gr_gid not in os.getgroups():
            return f"log in again: this session began before {user} was in the group {GROUP}"
    return f"sudo usermod -aG {GROUP} $USER, then log in again"


def image_id(name: str) -> str | None:
    """Return the image's ID, which changes with its content, or None if there is no such image."""
    try:
        return docker("image", "inspect", "--format", "{{.Id}}", name).strip()
    except LabError as error:
        if "No such image" in error.output or "not found" in error.output:
            return None
        raise


def image_size(name: str) -> int:
    """Return the image's size in bytes, as it is unpacked."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", name))


def image_platform(name: str) -> str:
    """Return the platform that the image is for, as `linux/amd64`."""
    return docker("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", name).strip()


def name_platform(machine: str) -> str:
    """Return the platform of a machine of this kind, as Python or EC2 names it."""
    return f"linux/{ARCHITECTURES.get(machine, machine)}"


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


def build(folder: Path, name: str, arguments: Mapping[str, str], whose: str = "") -> None:
    """Build the image `name` from the folder's Dockerfile. Raises LabError.

    `whose` says where the image is declared, if the folder is a temporary one.
    """
    given = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
    made = f"it is {whose}" if whose else f"it was made by: docker build {folder}"
    fix = f"its log has all that it printed; {made}"
    docker("build", "--tag", name, *given, folder, timeout=BUILD_SECONDS, fix=fix)


def save(name: str, archive: Path, leave_out: Collection[str] = ()) -> None:
    """Save the image to `archive`, atomically, without the members of these names."""
    with cache.replacing(archive) as part:
        docker("save", "--output", part, name, timeout=SAVE_SECONDS, fix="make room on the disk")
        if leave_out:
            with cache.replacing(part) as smaller:
                copy_members(part, smaller, leave_out)


def copy_members(source: Path, target: Path, leave_out: Collection[str]) -> None:
    """Copy a tar file without the members of these names."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            if member.name not in leave_out:
                new.addfile(member, old.extractfile(member) if member.isfile() else None)
