"""What runs in a lab's cluster: where each service's pods are, and how this machine reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.cluster.api import Cluster, ready
from lab.errors import ServiceError
from lab.wait import NotYet, until

STORES, AIRFLOW = "stores", "airflow"  # the namespaces
STEP_PODS = "app.kubernetes.io/component=step"
# A container that waits for one of these waits for a person.
HOPELESS = ("ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName")


@dataclass(frozen=True)
class Door:
    """How this machine reaches a service."""

    port: int  # in the cluster
    path: str  # answers 200 when the service serves
    protection: str


@dataclass(frozen=True)
class Workload:
    """One service of the lab: its pods."""

    name: str
    namespace: str
    selector: str
    door: Door | None = None


S3 = Door(9000, "/minio/health/live", "signed requests, a random key per account")
GIT = Door(3000, "/api/healthz", "a random password or token per account")
PAGES = Door(8080, "/api/v2/monitor/health", "a random password for the pages and the API")


def store(name: str, door: Door | None = None) -> Workload:
    return Workload(name, STORES, f"app.kubernetes.io/name={name}", door)


def component(name: str, door: Door | None = None) -> Workload:
    selector = f"tier=airflow,component={name.removeprefix('airflow-')}"
    return Workload(name, AIRFLOW, selector, door)


MINIO, GITEA, POSTGRESQL = store("minio", S3), store("gitea", GIT), store("postgresql")
API_SERVER = component("airflow-api-server", PAGES)
AIRFLOW_COMPONENTS = (
    API_SERVER,
    component("airflow-scheduler"),
    component("airflow-dag-processor"),
    component("airflow-triggerer"),
)
WORKLOADS = (MINIO, GITEA, POSTGRESQL, *AIRFLOW_COMPONENTS)
DOORS = tuple(workload for workload in WORKLOADS if workload.door)


def pods(cluster: Cluster, workload: Workload) -> list[Any]:
    """The workload's pods, but for those that are going."""
    found = cluster.pods(workload.namespace, workload.selector)
    return [pod for pod in found if pod.metadata.deletion_timestamp is None]


def serves(cluster: Cluster, workload: Workload) -> bool:
    """Whether a pod of the workload is ready."""
    return any(map(ready, pods(cluster, workload)))


def await_ready(
    cluster: Cluster, workload: Workload, timeout: float, hopeless: Sequence[str] = HOPELESS
) -> None:
    """A pod of the workload is ready. Raises ServiceError, at once for what waiting won't mend:
    where images are loaded beforehand, one that is missing."""

    def look() -> None:
        found = pods(cluster, workload)
        newest = revision(cluster, workload)
        current = [pod for pod in found if newest is None or newest in revisions(pod)]
        if not any(map(ready, current)):
            refuse_hopeless(current, hopeless)
            remove_stuck(cluster, found, current)
            raise NotYet(" ".join(map(describe, found)) or "it has no pod")

    until(look, what=workload.name, timeout=timeout, interval=0.3)


def revision(cluster: Cluster, workload: Workload) -> str | None:
    """What marks the pods of a workload's newest description; None for a Deployment that is new.

    Raises NotYet while its controller has not read that description.
    """
    for found in cluster.controllers(workload.namespace, workload.selector):
        if (found.status.observed_generation or 0) < found.metadata.generation:
            raise NotYet(f"{workload.name} was changed a moment ago")
        if hash_ := getattr(found.status, "update_revision", None):
            return str(hash_)
        if (found.status.updated_replicas or 0) < found.spec.replicas:
            raise NotYet(f"{workload.name} is being replaced")
    return None


def revisions(pod: Any) -> list[str]:
    return list((pod.metadata.labels or {}).values())


def remove_stuck(cluster: Cluster, found: list[Any], current: list[Any]) -> None:
    """Old pods that never became ready are gone: a StatefulSet would wait for them for ever."""
    for pod in found:
        if pod not in current and not ready(pod):
            cluster.kill_pod(pod.metadata.namespace, pod.metadata.name)


def refuse_hopeless(found: list[Any], hopeless: Sequence[str]) -> None:
    """Raises ServiceError when a pod can't get its image."""
    for pod in found:
        for reason, message in waiting(pod):
            if reason in hopeless:
                raise ServiceError(
                    f"{pod.metadata.name} has no image: {message}",
                    "lab doctor says which images are missing; then lab up again",
                )


def waiting(pod: Any) -> list[tuple[str, str]]:
    """Why containers of a pod wait: reason and message of each."""
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    states = [status.state.waiting for status in statuses if status.state.waiting]
    return [(state.reason or "", state.message or "") for state in states]


def describe(pod: Any) -> str:
    """A pod's state in a few words."""
    conditions = [c.message for c in pod.status.conditions or [] if c.reason == "Unschedulable"]
    reasons = [*(reason for reason, _ in waiting(pod)), *conditions]
    return f"{pod.metadata.name} is {pod.status.phase} {', '.join(reasons)}".strip()
