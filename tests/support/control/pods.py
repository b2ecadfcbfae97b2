"""Fault injection for a lab on kind: its services and steps are pods."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from threading import Event
from typing import Any

from lab.backends.kind import backend as kind
from lab.backends.kind import node
from lab.cluster import workloads
from lab.cluster.api import Cluster
from lab.cluster.docker import docker
from lab.cluster.secrets import SECRETS
from lab.cluster.workloads import AIRFLOW, STEP_PODS, WORKLOADS
from lab.config import Config
from lab.errors import LabError
from lab.home.secrets import Secrets
from lab.model import Run

RESTART_SECONDS = 120
TRACE_SECONDS = 120
ENDED = ("Succeeded", "Failed")  # a pod's phases without a way back
POD_LOGS = "/var/log/pods"
# Where the host has cgroups v1, runc freezes a container for a moment while it makes it. A runc
# that is killed in that moment leaves it frozen, and what is frozen neither goes on nor can be
# killed: its pod, and a node that is to end, hang for ever. A node sees its own cgroups alone.
THAW = (
    "find /sys/fs/cgroup/freezer -name freezer.state 2> /dev/null | while read -r state; do "
    'grep -q THAWED "$state" || echo THAWED > "$state"; done'
)
THAW_SECONDS = 5  # between two checks
# Everything in the volumes but the datasets' bytes, which are long and hold no log.
LEFT_OUT = ("--exclude=*/files/md5/*", "--exclude=*.csv")


@dataclass(frozen=True)
class Pods:
    """Fault injection for a lab on kind."""

    config: Config

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster(node.kubeconfig_path(self.config))

    def list_services(self) -> list[str]:
        """Return the services that can be killed."""
        return [workload.name for workload in WORKLOADS]

    def list_stores(self) -> tuple[str, str]:
        """Return the git server and the S3 server."""
        return workloads.GITEA.name, workloads.MINIO.name

    def list_parts(self) -> list[str]:
        """Return the pods of the steps that have not ended."""
        found = self.cluster.list_pods(AIRFLOW, STEP_PODS)
        return [f"pod/{pod.metadata.name}" for pod in found if is_at_work(pod)]

    def kill(self, name: str) -> None:
        """Kill the service's pods, or the one pod, without a warning."""
        if name.startswith("pod/"):
            self.cluster.kill_pod(AIRFLOW, name.removeprefix("pod/"))
            return
        workload = next(w for w in WORKLOADS if w.name == name)
        for pod in workloads.list_pods(self.cluster, workload):
            self.cluster.kill_pod(workload.namespace, pod.metadata.name)

    def cut_power(self) -> None:
        """End the whole node at once, as in a power cut, and have Docker start it again."""
        node.run_inside(self.config, "sh", "-c", f"kill -9 -1; {THAW}")
        docker("restart", "-t", "0", node.container_name(self.config), timeout=RESTART_SECONDS)

    def restore(self) -> None:
        """Wait until every service answers again."""
        with thawing(self.config):
            kind.restore(self.config)

    def list_kept(self, run: Run) -> list[str]:
        """Return the run's pods that have ended and are not about to go."""
        whose = {"dag_id": run.dag_id, "run_id": run.id}
        return [
            pod.metadata.name
            for pod in self.cluster.list_pods(AIRFLOW, STEP_PODS)
            if whose.items() <= (pod.metadata.annotations or {}).items()
            and not is_at_work(pod)
            and not pod.metadata.deletion_timestamp
        ]

    def list_secrets(self) -> list[str]:
        """Return every random value, each token and the cluster's key."""
        found = [*Secrets(self.config).values.values()]
        read = self.cluster.read_secret
        found += [(read(one.namespace, one.secret) or {})[one.key] for one in SECRETS]
        return [*set(found), client_key(self.config)]

    def read_traces(self) -> Iterator[tuple[str, bytes]]:
        """Yield logs, volumes, every object but Secrets, and every command line in the node."""
        yield (
            "arguments",
            self.run_in_node("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null || true"),
        )
        for what in ("pods", "configmaps", "events", "statefulsets", "deployments", "jobs"):
            shown = self.cluster.kubectl("get", what, "--all-namespaces", "--output", "json")
            yield what, shown.encode()
        for folder in (self.config.logs, self.config.run):
            for path in folder.rglob("*"):
                if path.is_file():
                    yield str(path), path.read_bytes()
        yield from self.read_files()

    def read_files(self) -> Iterator[tuple[str, bytes]]:
        """Yield each file of the pods' logs and volumes."""
        places = [POD_LOGS, node.VOLUMES]
        packed = self.run_in_node("tar", "--ignore-failed-read", "-cf", "-", *LEFT_OUT, *places)
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            for member in archive:
                if member.isfile() and (file := archive.extractfile(member)):
                    yield member.name, file.read()

    def run_in_node(self, *command: str) -> bytes:
        """Run a command in the node and return its output; files may vanish while it reads them."""
        words = ["docker", "exec", node.container_name(self.config), *command]
        done = subprocess.run(words, capture_output=True, timeout=TRACE_SECONDS, check=False)
        return done.stdout


def is_at_work(pod: Any) -> bool:
    """Return whether the step's container may still run: its end is reported before its pod's."""
    states = [each.state for each in pod.status.container_statuses or []]
    return pod.status.phase not in ENDED and not any(state.terminated for state in states)


@contextmanager
def thawing(config: Config) -> Iterator[None]:
    """Thaw frozen cgroups in the node while the block runs."""
    ended = Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(thaw, config, ended)
        try:
            yield
        finally:
            ended.set()


def thaw(config: Config, ended: Event) -> None:
    """Thaw every frozen cgroup in the node, again and again until `ended`."""
    while True:
        with suppress(LabError):  # the node may be on its way up
            node.run_inside(config, "sh", "-c", THAW)
        if ended.wait(THAW_SECONDS):
            return


def client_key(config: Config) -> str:
    """Return the private key in the kubeconfig."""
    text = node.kubeconfig_path(config).read_text("utf-8")
    return text.partition("client-key-data: ")[2].split()[0]
