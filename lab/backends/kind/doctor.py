"""Checks of this machine for a lab on kind, each with a fix. They change nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import requests

from lab.backends import doctor
from lab.backends.doctor import Checks, to_gigabytes
from lab.backends.kind import node, s3_policies
from lab.cluster import associations, chart, docker, images, tools
from lab.cluster.docker import EMBEDDED
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import DiskError, MachineError
from lab.layout import BUCKET

MEMORY = 6 * 2**30  # bytes; the cluster with a whole lab and four running steps
FRESH_DISK = 12 * 2**30  # bytes: images in Docker, as archives and in the node
DISK = 2 * 2**30  # bytes, once the node exists
OLDEST_DOCKER = 20
INOTIFY = {"max_user_instances": 128, "max_user_watches": 8192}
REGISTRY_SECONDS = 3


def check_engine(config: Config) -> str:
    """Return Docker's version. Raises MachineError when it does not answer or is too old."""
    found = docker.inspect_engine()
    major = re.match(r"\d+", found.version)
    if not major or int(major[0]) < OLDEST_DOCKER:
        raise MachineError(
            f"Docker is {found.version}; kind needs {OLDEST_DOCKER} or newer", "install a newer one"
        )
    old = ", deprecated by Kubernetes: boot with cgroup v2" if found.cgroup == "1" else ""
    return f"{found.version}, {found.cpus} cores, cgroup v{found.cgroup}{old}"


def check_memory(config: Config) -> str:
    """Return the memory that Docker may use. Raises MachineError when it is too little."""
    found = docker.inspect_engine().memory
    if found < MEMORY * 0.97:  # what a machine of 6 GiB reports
        raise MachineError(
            f"Docker has {to_gigabytes(found)} of memory; "
            f"a lab on kind needs {to_gigabytes(MEMORY)}",
            f"give Docker more{EMBEDDED}",
        )
    return to_gigabytes(found)


def check_disk(config: Config) -> str:
    """Return the free space for images and volumes. Raises DiskError when it is too little."""
    place = Path(docker.docker("info", "--format", "{{.DockerRootDir}}").strip())
    shown = place if place.exists() else doctor.nearest_folder(config)  # Docker may run in a VM
    free = shutil.disk_usage(shown).free
    needed = DISK if node.read_state(config) else FRESH_DISK
    if free < needed:
        raise DiskError(
            f"{to_gigabytes(free)} free at {shown}; a lab on kind needs {to_gigabytes(needed)}",
            f"make room (docker system df shows what Docker keeps){EMBEDDED}",
        )
    return f"{to_gigabytes(free)} free"


def check_inotify(config: Config) -> str:
    """Return the kernel's inotify limits. Raises MachineError for one too low for kind."""
    found = {}
    for name, needed in INOTIFY.items():
        file = Path("/proc/sys/fs/inotify") / name
        if not file.exists():  # not Linux: Docker's own VM has them
            return "Docker's own"
        found[name] = int(file.read_text("ascii"))
        if found[name] < needed:
            raise MachineError(
                f"fs.inotify.{name} is {found[name]}; a node needs {needed}",
                f"sudo sysctl fs.inotify.{name}={needed * 4}",
            )
    return ", ".join(f"{name} {value}" for name, value in found.items())


def check_tools(config: Config) -> str:
    """Describe kind, kubectl and helm. Raises MachineError for one that can't be downloaded."""
    for name in tools.list_missing():
        refuse_unreachable(
            tools.pinned_release(tools.read_pin(name)).url,
            f"put {name} {tools.read_pin(name).accepts} on PATH{EMBEDDED}",
        )
    return ", ".join(tools.describe(name) for name in tools.VERSION_ARGUMENTS)


def refuse_unreachable(url: str, fix: str) -> None:
    """Raise MachineError unless the server of `url` answers."""
    try:
        requests.head(url, timeout=REGISTRY_SECONDS)
    except requests.RequestException as error:
        raise MachineError(f"{url} is needed, and its server does not answer", fix) from error


def check_images(config: Config) -> str:
    """Describe the images that Docker lacks. Raises MachineError for one that can't be pulled."""
    missing = images.list_missing(config, is_reachable)
    lacking = [image for image in missing if not image.is_built]
    unreachable = [image for image in lacking if not is_reachable(image)]
    if unreachable:
        names = ", ".join(image.name for image in unreachable)
        raise MachineError(
            f"no registry answers for images that Docker does not hold: {names}",
            "; ".join(f"docker pull {image.name}" for image in unreachable) + EMBEDDED,
        )
    groups = {
        "to be pulled": lacking,
        "to be built, with a network": [image for image in missing if image.is_built],
    }
    said = {what: ", ".join(image.name for image in found) for what, found in groups.items()}
    return "; ".join(f"{what}: {names}" for what, names in said.items() if names) or "all here"


def is_reachable(image: Image) -> bool:
    """Return whether the image's registry answers."""
    first, slash, _ = image.name.partition("/")
    host = first if slash and ("." in first or ":" in first) else "registry-1.docker.io"
    try:
        refuse_unreachable(f"https://{host}/v2/", "")
    except MachineError:
        return False
    return True


def check_associations(config: Config) -> str:
    """Return how many service accounts have a role. Raises AssociationError for a wrong entry."""
    roles = associations.read_roles(config.kit)
    for role in roles:
        s3_policies.read_role_policy(config.kit, role, BUCKET)
    return f"{len(associations.list_accounts(roles))} service accounts have one"


def check_chart(config: Config) -> str:
    """Return where Airflow's chart is or comes from. Raises MachineError if it can't be had."""
    if not chart.find_local(config):
        fix = f"LAB_AIRFLOW_CHART=/path/to/the.tgz{EMBEDDED}"
        refuse_unreachable(chart.read_pin(config.kit)["url"], fix)
    return chart.describe(config)


CHECKS: Checks = {
    "python": doctor.check_python,
    "git": doctor.check_git,
    "home": doctor.check_home,
    "docker": check_engine,
    "memory": check_memory,
    "disk": check_disk,
    "inotify": check_inotify,
    "tools": check_tools,
    "images": check_images,
    "chart": check_chart,
    "roles": check_associations,
    "dataset": doctor.check_dataset,
}
