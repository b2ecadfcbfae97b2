"""The Kubernetes API of a cluster: the objects that the kit reads, creates and deletes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cluster import tools
from lab.errors import LabError, ServiceError
from lab.reasons import shorten
from lab.shell import run

if TYPE_CHECKING:
    from kubernetes.client import ApiException

CALL_SECONDS = 30
APPLY_SECONDS = 120
FIELD_MANAGER = "mlops-lab"
NOT_FOUND = 404


@dataclass(frozen=True)
class Cluster:
    """A cluster, reached through a kubeconfig."""

    kubeconfig: Path

    @cached_property
    def core(self) -> Any:
        """The core/v1 API of the official client."""
        from kubernetes import client, config

        api = config.new_client_from_config(str(self.kubeconfig))
        return client.CoreV1Api(api)

    @cached_property
    def apps(self) -> Any:
        """The apps/v1 API of the official client: StatefulSets, Deployments and DaemonSets."""
        from kubernetes import client

        return client.AppsV1Api(self.core.api_client)

    def list_controllers(self, namespace: str, selector: str) -> list[Any]:
        """List the StatefulSets, Deployments and DaemonSets that match a label selector."""
        options = {"label_selector": selector, "_request_timeout": CALL_SECONDS}
        with translating_errors():
            return [
                *self.apps.list_namespaced_stateful_set(namespace, **options).items,
                *self.apps.list_namespaced_deployment(namespace, **options).items,
                *self.apps.list_namespaced_daemon_set(namespace, **options).items,
            ]

    def kubectl(
        self, *arguments: str | Path, timeout: float = CALL_SECONDS, stdin: str = ""
    ) -> str:
        """Run kubectl and return what it printed. Raises LabError."""
        command = [tools.find("kubectl"), "--kubeconfig", self.kubeconfig, *arguments]
        return run(command, timeout=timeout, stdin=stdin, fix="lab doctor; lab logs")

    def apply(self, manifests: str, manager: str = FIELD_MANAGER) -> None:
        """Apply manifests server-side, overriding other field managers. Raises LabError.

        What only another `manager` has set stays.
        """
        flags = ("--server-side", "--force-conflicts", f"--field-manager={manager}")
        self.kubectl("apply", *flags, "--filename", "-", timeout=APPLY_SECONDS, stdin=manifests)

    def list_pods(self, namespace: str, selector: str = "") -> list[Any]:
        """List the pods that match a label selector."""
        with translating_errors():
            found = self.core.list_namespaced_pod(
                namespace, label_selector=selector, _request_timeout=CALL_SECONDS
            )
        return list(found.items)

    def kill_pod(self, namespace: str, name: str) -> None:
        """Delete the pod with no grace period, if it exists."""
        with ignoring_not_found():
            self.core.delete_namespaced_pod(
                name, namespace, grace_period_seconds=0, _request_timeout=CALL_SECONDS
            )

    def read_secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """Return the decoded values of a Secret, or None if there is no such Secret."""
        found = None
        with ignoring_not_found():
            found = self.core.read_namespaced_secret(name, namespace, _request_timeout=CALL_SECONDS)
        return found and {k: base64.b64decode(v).decode() for k, v in (found.data or {}).items()}

    def write_secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        """Create or replace the Secret with exactly these values; write nothing if it has them."""
        from kubernetes import client

        known = self.read_secret(namespace, name)
        if known == dict(values):
            return
        body = client.V1Secret(
            metadata=client.V1ObjectMeta(name=name, labels=LABELS), string_data=dict(values)
        )
        with translating_errors():
            if known is None:
                self.core.create_namespaced_secret(namespace, body, _request_timeout=CALL_SECONDS)
            else:
                body.data = {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
                body.string_data = None
                self.core.replace_namespaced_secret(
                    name, namespace, body, _request_timeout=CALL_SECONDS
                )

    def delete_secret(self, namespace: str, name: str) -> None:
        """Delete the Secret, if it exists."""
        with ignoring_not_found():
            self.core.delete_namespaced_secret(name, namespace, _request_timeout=CALL_SECONDS)

    def execute(self, namespace: str, pod: str, command: Sequence[str]) -> str:
        """Run a command in a pod and return what it printed. Raises LabError."""
        return self.kubectl("exec", "--namespace", namespace, pod, "--", *command, timeout=60)


LABELS = {"app.kubernetes.io/part-of": "mlops-lab"}


@contextmanager
def translating_errors() -> Iterator[None]:
    """Raise the Kubernetes client's errors as ServiceError."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise ServiceError(
            f"the Kubernetes API answered {error.status}: {refusal_message(error)}", "lab doctor"
        ) from error
    except HTTPError as error:
        raise ServiceError(
            f"the Kubernetes API does not answer: {error}", "lab up starts the node again"
        ) from error


def refusal_message(error: ApiException) -> str:
    """Return the message of the API's answer, else the HTTP reason."""
    try:
        said = str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        said = str(error.reason)
    return shorten(" ".join(said.split()))


@contextmanager
def ignoring_not_found() -> Iterator[None]:
    """Raise errors as `translating_errors` does, except for 404 Not Found."""
    try:
        with translating_errors():
            yield
    except LabError as error:
        if getattr(error.__cause__, "status", None) != NOT_FOUND:
            raise


def is_ready(pod: Any) -> bool:
    """Return whether the pod has the condition Ready and is not being deleted."""
    conditions = pod.status.conditions or []
    return pod.metadata.deletion_timestamp is None and any(
        c.type == "Ready" and c.status == "True" for c in conditions
    )
