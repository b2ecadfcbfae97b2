"""A cluster's API: the objects that the kit reads, makes and removes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.cluster import tools
from lab.errors import LabError, ServiceError
from lab.shell import run

CALL_SECONDS = 30
APPLY_SECONDS = 120
FIELD_MANAGER = "mlops-lab"
NOT_FOUND = 404


@dataclass(frozen=True)
class Cluster:
    """A cluster that a kubeconfig opens."""

    kubeconfig: Path

    @cached_property
    def core(self) -> Any:
        """The core API, by the official client."""
        from kubernetes import client, config

        api = config.new_client_from_config(str(self.kubeconfig))
        return client.CoreV1Api(api)

    @cached_property
    def apps(self) -> Any:
        """The API of what keeps pods running."""
        from kubernetes import client

        return client.AppsV1Api(self.core.api_client)

    def controllers(self, namespace: str, selector: str) -> list[Any]:
        """The StatefulSets and Deployments that a label selector chooses."""
        how = {"label_selector": selector, "_request_timeout": CALL_SECONDS}
        with answers_known():
            return [
                *self.apps.list_namespaced_stateful_set(namespace, **how).items,
                *self.apps.list_namespaced_deployment(namespace, **how).items,
            ]

    def kubectl(
        self, *arguments: str | Path, timeout: float = CALL_SECONDS, stdin: str = ""
    ) -> str:
        """What kubectl printed. Raises LabError."""
        command = [tools.find("kubectl"), "--kubeconfig", self.kubeconfig, *arguments]
        return run(command, timeout=timeout, stdin=stdin, fix="lab doctor; lab logs")

    def apply(self, manifests: str) -> None:
        """The cluster has these objects, and their fields are as they say. Raises LabError."""
        flags = ("--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}")
        self.kubectl("apply", *flags, "--filename", "-", timeout=APPLY_SECONDS, stdin=manifests)

    def pods(self, namespace: str, selector: str = "") -> list[Any]:
        """The pods that a label selector chooses."""
        with answers_known():
            found = self.core.list_namespaced_pod(
                namespace, label_selector=selector, _request_timeout=CALL_SECONDS
            )
        return list(found.items)

    def kill_pod(self, namespace: str, name: str) -> None:
        """The pod's containers are killed at once; a pod that is gone already is fine."""
        with absent_is_fine():
            self.core.delete_namespaced_pod(
                name, namespace, grace_period_seconds=0, _request_timeout=CALL_SECONDS
            )

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """What a Secret holds, or None where there is none."""
        found = None
        with absent_is_fine():
            found = self.core.read_namespaced_secret(name, namespace, _request_timeout=CALL_SECONDS)
        return found and {k: base64.b64decode(v).decode() for k, v in (found.data or {}).items()}

    def write_secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        """The Secret holds exactly these values; one that does already is not touched."""
        from kubernetes import client

        known = self.secret(namespace, name)
        if known == dict(values):
            return
        body = client.V1Secret(
            metadata=client.V1ObjectMeta(name=name, labels=LABELS), string_data=dict(values)
        )
        with answers_known():
            if known is None:
                self.core.create_namespaced_secret(namespace, body, _request_timeout=CALL_SECONDS)
            else:
                body.data = {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
                body.string_data = None
                self.core.replace_namespaced_secret(
                    name, namespace, body, _request_timeout=CALL_SECONDS
                )

    def execute(self, namespace: str, pod: str, command: Sequence[str]) -> str:
        """What a command printed inside of a pod. Raises LabError."""
        return self.kubectl("exec", "--namespace", namespace, pod, "--", *command, timeout=60)


LABELS = {"app.kubernetes.io/part-of": "mlops-lab"}


@contextmanager
def answers_known() -> Iterator[None]:
    """The client's failures as the lab's: ServiceError."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        detail = " ".join(str(error.body or error.reason).split())[:400]
        raise ServiceError(
            f"the Kubernetes API answered {error.status}: {detail}", "lab doctor"
        ) from error
    except HTTPError as error:
        raise ServiceError(
            f"the Kubernetes API does not answer: {error}", "lab up starts the node again"
        ) from error


@contextmanager
def absent_is_fine() -> Iterator[None]:
    """As `answers_known`, but what is not there is no failure."""
    try:
        with answers_known():
            yield
    except LabError as error:
        if getattr(error.__cause__, "status", None) != NOT_FOUND:
            raise


def ready(pod: Any) -> bool:
    """Whether the pod serves."""
    conditions = pod.status.conditions or []
    return pod.metadata.deletion_timestamp is None and any(
        c.type == "Ready" and c.status == "True" for c in conditions
    )
