"""What this machine lacks for a lab on kind, and what to do about it. Looks only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import requests

from lab.backends import doctor
from lab.backends.doctor import Looks, gigabytes
from lab.backends.kind import node
from lab.cluster import chart, docker, images, tools
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import DiskError, MachineError

MEMORY = 6 * 2**30  # bytes; the cluster with a whole lab and four steps at work
FRESH_DISK = 12 * 2**30  # bytes: images in Docker, as archives and in the node
DISK = 2 * 2**30  # bytes, once the node is there
OLDEST_DOCKER = 20
INOTIFY = {"max_user_instances": 128, "max_user_watches": 8192}
REGISTRY_SECONDS = 3
EMBEDDED = "or use the lab without it: --backend embedded"


def engine(config: Config) -> str:
    """Docker's version. Raises MachineError when it does not answer or is too old."""
    found = docker.engine()
    major = re.match(r"\d+", found.version)
    if not major or int(major[0]) < OLDEST_DOCKER:
        raise MachineError(
            f"Docker is {found.version}; kind needs {OLDEST_DOCKER} or newer", "install a newer one"
        )
    old = ", deprecated by Kubernetes: boot with cgroup v2" if found.cgroup == "1" else ""
    return f"{found.version}, {found.cpus} cores, cgroup v{found.cgroup}{old}"


def memory(config: Config) -> str:
    """The memory that Docker may use. Raises MachineError when it is too little."""
    found = docker.engine().memory
    if found < MEMORY * 0.97:  # what a machine of 6 GiB shows
        raise MachineError(
            f"Docker has {gigabytes(found)} of memory; a lab on kind needs {gigabytes(MEMORY)}",
            f"give Docker more, {EMBEDDED}",
        )
    return gigabytes(found)


def disk(config: Config) -> str:
    """The room for images and volumes. Raises DiskError when it is too little."""
    place = Path(docker.docker("info", "--format", "{{.DockerRootDir}}").strip())
    shown = place if place.exists() else doctor.nearest(config)  # Docker may be in a machine
    free = shutil.disk_usage(shown).free
    needed = DISK if node.state(config) else FRESH_DISK
    if free < needed:
        raise DiskError(
            f"{gigabytes(free)} free at {shown}; a lab on kind needs {gigabytes(needed)}",
            f"make room (docker system df shows what Docker keeps), {EMBEDDED}",
        )
    return f"{gigabytes(free)} free"


def inotify(config: Config) -> str:
    """The kernel's limits on watching files. Raises MachineError for one that kind can't bear."""
    found = {}
    for name, needed in INOTIFY.items():
        file = Path("/proc/sys/fs/inotify") / name
        if not file.exists():  # not Linux: Docker's own machine has them
            return "Docker's own"
        found[name] = int(file.read_text("ascii"))
        if found[name] < needed:
            raise MachineError(
                f"fs.inotify.{name} is {found[name]}; a node needs {needed}",
                f"sudo sysctl fs.inotify.{name}={needed * 4}",
            )
    return ", ".join(f"{name} {value}" for name, value in found.items())


def command_line_tools(config: Config) -> str:
    """kind, kubectl and helm. Raises MachineError for one that can't be had here."""
    for name in tools.missing():
        refuse_unreachable(
            tools.release(tools.pinned(name)).url,
            f"put {name} {tools.pinned(name).accepts} on PATH, {EMBEDDED}",
        )
    return ", ".join(tools.describe(name) for name in tools.ASK)


def refuse_unreachable(url: str, fix: str) -> None:
    """Raises MachineError when the server that has `url` does not answer."""
    try:
        requests.head(url, timeout=REGISTRY_SECONDS)
    except requests.RequestException as error:
        raise MachineError(f"{url} is needed, and its server does not answer", fix) from error


def lacking_images(config: Config) -> str:
    """The images that Docker does not hold. Raises MachineError for one that can't be pulled."""
    lacking = images.missing(config.tree)
    unreachable = [image for image in lacking if not reachable(image)]
    if unreachable:
        names = ", ".join(image.name for image in unreachable)
        raise MachineError(
            f"no registry answers for images that Docker does not hold: {names}",
            "; ".join(f"docker pull {image.name}" for image in unreachable) + f", {EMBEDDED}",
        )
    groups = {"to be pulled": lacking, "to be built, with a network": images.unbuilt(config.tree)}
    said = {what: ", ".join(image.name for image in found) for what, found in groups.items()}
    return "; ".join(f"{what}: {names}" for what, names in said.items() if names) or "all here"


def reachable(image: Image) -> bool:
    """Whether the registry that has the image answers."""
    first, slash, _ = image.name.partition("/")
    host = first if slash and ("." in first or ":" in first) else "registry-1.docker.io"
    try:
        refuse_unreachable(f"https://{host}/v2/", "")
    except MachineError:
        return False
    return True


def airflow_chart(config: Config) -> str:
    """Where Airflow's chart is, or will come from. Raises MachineError when it can't be had."""
    if not chart.here(config):
        fix = f"LAB_AIRFLOW_CHART=/path/to/the.tgz, {EMBEDDED}"
        refuse_unreachable(chart.pinned()["url"], fix)
    return chart.describe(config)


LOOKS: Looks = {
    "python": doctor.python,
    "git": doctor.git,
    "home": doctor.home,
    "docker": engine,
    "memory": memory,
    "disk": disk,
    "inotify": inotify,
    "tools": command_line_tools,
    "images": lacking_images,
    "chart": airflow_chart,
    "dataset": doctor.own_dataset,
}
