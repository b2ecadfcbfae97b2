"""Pods of a test in a lab on kind that do what the test has them do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW

START_SECONDS = 120
STEP = "airflow-step"
SMALL = {"cpu": "1", "memory": "64Mi"}  # many of them have room in the namespace's quota
LARGE = {"cpu": "1", "memory": "384Mi"}


@dataclass(frozen=True)
class Probe:
    """A step's pod that sleeps; it may be of another service account."""

    cluster: Cluster
    name: str

    def run(self, code: str, *arguments: str, content: str = "") -> Any:
        """Run Python code in the pod and return what it printed, which is JSON.

        `content` is its standard input: what is secret belongs there.
        """
        command = ("--stdin", self.name, "--", "python", "-c", code, *arguments)
        where = ("exec", "--namespace", AIRFLOW, "--container", "base")
        shown = self.cluster.kubectl(*where, *command, timeout=START_SECONDS, stdin=content)
        return json.loads(shown.splitlines()[-1])


@contextmanager
def probing(
    cluster: Cluster, *names: str, account: str = STEP, small: bool = False
) -> Iterator[list[Probe]]:
    """Start pods of these names, and delete them after the block."""
    template = read_template(cluster)
    try:
        for name in names:
            pod = sleeping_pod(template, name, account, SMALL if small else LARGE)
            cluster.kubectl("create", "--filename", "-", stdin=json.dumps(pod))
        pods = [f"pod/{name}" for name in names]
        ready = ("--for=condition=Ready", f"--timeout={START_SECONDS}s", "--namespace", AIRFLOW)
        cluster.kubectl("wait", *ready, *pods, timeout=START_SECONDS + 10)
        yield [Probe(cluster, name) for name in names]
    finally:
        for name in names:
            cluster.kill_pod(AIRFLOW, name)


def read_template(cluster: Cluster, name: str = "step") -> dict[str, Any]:
    """Return a PodTemplate of the cluster, as a pod has it: labels and spec."""
    shown = cluster.kubectl("get", "podtemplate", name, "--namespace", AIRFLOW, "--output", "json")
    template: dict[str, Any] = json.loads(shown)["template"]
    return template


def sleeping_pod(
    template: dict[str, Any], name: str, account: str = STEP, limits: dict[str, str] = LARGE
) -> dict[str, Any]:
    """Return a pod of the template that only sleeps."""
    (container,) = template["spec"]["containers"]
    sizes = {"requests": {**limits, "cpu": "10m"}, "limits": limits}
    sleeping = {**container, "command": ["sleep", "1800"], "resources": sizes}
    spec = {**template["spec"], "serviceAccountName": account, "containers": [sleeping]}
    metadata = {"name": name, "namespace": AIRFLOW, "labels": dict(template["metadata"]["labels"])}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def run_in_each(probes: Sequence[Probe], code: str, *arguments: str) -> list[Any]:
    """Run the code in all of the pods at once; return what each has printed."""
    with ThreadPoolExecutor(len(probes)) as pool:
        return list(pool.map(lambda probe: probe.run(code, *arguments), probes))
