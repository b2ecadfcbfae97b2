"""The services in a lab's cluster: their pods, and the ports by which this machine reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.cluster.api import Cluster, is_ready
from lab.errors import ServiceError
from lab.wait import NotYet, wait_until

STORES, AIRFLOW, IDENTITY = "stores", "airflow", "pod-identity"  # the namespaces
STEP_PODS = "app.kubernetes.io/component=step"
# Reasons to wait that no waiting ends: somebody has to provide the image.
HOPELESS = ("ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName")


@dataclass(frozen=True)
class Door:
    """How this machine reaches a service."""

    port: int  # in the cluster
    path: str  # answers 200 when the service is healthy
    protection: str


@dataclass(frozen=True)
class Workload:
    """One service of the lab, and the selector of its pods."""

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
EKS_AUTH = store("eks-auth")
AGENT = Workload("pod-identity-agent", IDENTITY, "app.kubernetes.io/name=pod-identity-agent")
API_SERVER = component("airflow-api-server", PAGES)
AIRFLOW_COMPONENTS = (
    API_SERVER,
    component("airflow-scheduler"),
    component("airflow-dag-processor"),
    component("airflow-triggerer"),
)
WORKLOADS = (MINIO, GITEA, POSTGRESQL, EKS_AUTH, AGENT, *AIRFLOW_COMPONENTS)
DOORS = tuple(workload for workload in WORKLOADS if workload.door)


def list_pods(cluster: Cluster, workload: Workload) -> list[Any]:
    """List the workload's pods that are not being deleted."""
    found = cluster.list_pods(workload.namespace, workload.selector)
    return [pod for pod in found if pod.metadata.deletion_timestamp is None]


def is_serving(cluster: Cluster, workload: Workload) -> bool:
    """Return whether a pod of the workload is ready."""
    return any(map(is_ready, list_pods(cluster, workload)))


def wait_until_ready(
    cluster: Cluster, workload: Workload, timeout: float, hopeless: Sequence[str] = HOPELESS
) -> None:
    """Wait until a pod of the workload's newest revision is ready.

    Raises ServiceError after `timeout` seconds, or at once when a container waits for a reason in
    `hopeless`: where images are loaded beforehand, that the image is missing.
    """

    def look() -> None:
        found = list_pods(cluster, workload)
        newest = find_revision(cluster, workload)
        current = [pod for pod in found if newest is None or newest in label_values(pod)]
        if not any(map(is_ready, current)):
            refuse_hopeless(current, hopeless)
            kill_stuck_pods(cluster, found, current)
            raise NotYet(" ".join(map(describe_pod, found)) or "it has no pod")

    wait_until(look, what=workload.name, timeout=timeout, interval=0.3)


def find_revision(cluster: Cluster, workload: Workload) -> str | None:
    """Return the revision label of the newest StatefulSet pods; None for what is up to date.

    Raises NotYet while the newest spec is not observed, or a Deployment or DaemonSet still replaces
    pods.
    """
    for found in cluster.list_controllers(workload.namespace, workload.selector):
        if (found.status.observed_generation or 0) < found.metadata.generation:
            raise NotYet(f"{workload.name} was changed a moment ago")
        if hash_ := getattr(found.status, "update_revision", None):
            return str(hash_)
        if is_being_replaced(found):
            raise NotYet(f"{workload.name} is being replaced")
    return None


def is_being_replaced(found: Any) -> bool:
    """Return whether a Deployment or DaemonSet has fewer pods of its newest spec than it wants."""
    status = found.status
    if hasattr(found.spec, "replicas"):
        return bool((status.updated_replicas or 0) < found.spec.replicas)
    return bool((status.updated_number_scheduled or 0) < status.desired_number_scheduled)


def label_values(pod: Any) -> list[str]:
    return list((pod.metadata.labels or {}).values())


def kill_stuck_pods(cluster: Cluster, found: list[Any], current: list[Any]) -> None:
    """Delete old pods that are not ready: a StatefulSet would wait for them for ever."""
    for pod in found:
        if pod not in current and not is_ready(pod):
            cluster.kill_pod(pod.metadata.namespace, pod.metadata.name)


def refuse_hopeless(found: list[Any], hopeless: Sequence[str]) -> None:
    """Raise ServiceError if a container waits for a reason in `hopeless`."""
    for pod in found:
        for reason, message in waiting_reasons(pod):
            if reason in hopeless:
                raise ServiceError(
                    f"{pod.metadata.name} has no image: {message}",
                    "lab doctor says which images are missing; then lab up again",
                )


def waiting_reasons(pod: Any) -> list[tuple[str, str]]:
    """List the reason and message of each waiting container of a pod."""
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    states = [status.state.waiting for status in statuses if status.state.waiting]
    return [(state.reason or "", state.message or "") for state in states]


def describe_pod(pod: Any) -> str:
    """Return a pod's phase and why it waits, in a few words."""
    conditions = [c.message for c in pod.status.conditions or [] if c.reason == "Unschedulable"]
    reasons = [*(reason for reason, _ in waiting_reasons(pod)), *conditions]
    return f"{pod.metadata.name} is {pod.status.phase} {', '.join(reasons)}".strip()
