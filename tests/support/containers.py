"""The steps' images as containers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cluster import docker
from tests.support.stores import DEADLINE, Done

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

USER = 10001
LINUX = sys.platform == "linux"
# The name by which a container reaches a server on this machine's loopback.
LOOPBACK = "127.0.0.1" if LINUX else "host.docker.internal"


@dataclass(frozen=True)
class Worker:
    """The image of a step, and the volume that its containers share."""

    image: str
    shared: Path

    @contextmanager
    def container(self, *argv: str, **options: Any) -> Iterator[DockerContainer]:
        """Start a container as restricted as the PodTemplate's; remove it afterwards."""
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer

        testcontainers_config.ryuk_disabled = True  # the block below ends the container
        container = DockerContainer(self.image, env=options.pop("env", {}))
        container.with_command(list(argv))
        container.with_volume_mapping(self.shared, "/shared", "rw")
        container.with_tmpfs_mount("/tmp", "size=1g,mode=1777")
        container.with_kwargs(
            user=f"{USER}:{USER}",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="512m",
            **({"network_mode": "host"} if LINUX else {}),
            **options,
        )
        with container:
            yield container

    def run_to_end(self, *argv: str, **options: Any) -> Done:
        """Run a container to its end; return its exit code and output."""
        with self.container(*argv, **options) as container:
            return wait_for_end(container)


def wait_for_end(container: DockerContainer) -> Done:
    code = container.get_wrapped_container().wait(timeout=DEADLINE)["StatusCode"]
    return Done(code, read_logs(container))


def read_logs(container: DockerContainer) -> str:
    return "".join(stream.decode() for stream in container.get_logs())


def inspect_container(name: str) -> dict[str, Any]:
    (found,) = json.loads(docker.docker("inspect", name))
    assert isinstance(found, dict)
    return found


def find_files(image: str, user: int, *expression: str) -> set[str]:
    """Return the paths that `find` finds in the image, in a container without restrictions."""
    command = ("run", "--rm", "--network", "none", "--user", str(user), "--entrypoint", "sh", image)
    kernel = "-not -path '/proc/*' -not -path '/dev/*' -not -path '/sys/*'"
    words = f"find / -xdev {kernel} \\( {' '.join(expression)} \\) 2>/dev/null; true"
    return set(docker.docker(*command, "-c", words, timeout=DEADLINE).splitlines())
