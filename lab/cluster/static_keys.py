"""Static AWS keys that a pod could read. Where pods have an identity, there should be none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lab.cluster.api import CALL_SECONDS, Cluster, translating_errors
from lab.errors import LabError

# Where botocore and the other SDKs read keys from, and the form of an AWS key: the prefixes are
# from IAM's documentation of unique identifiers.
VARIABLES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_PROFILE",
}
WORDS = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|(?i:aws_secret_access_key)\s*=\s*[\w/+]{20}")
NAMES = "tr '\\0' '\\n' < /proc/1/environ | cut -d = -f 1"  # of its variables, not their values
# kubectl's errors for an image without a shell, and for a pod or container that is gone.
BLIND = re.compile(
    "executable file not found|no such file|not found|completed pod|not running|is terminated",
    re.IGNORECASE,
)
IDENTITY = "AWS_CONTAINER_CREDENTIALS_FULL_URI"  # is in each pod that has an identity


@dataclass(frozen=True)
class KeyPlace:
    """A place from which a pod can read a static key."""

    pod: str
    where: str

    def __str__(self) -> str:
        return f"{self.pod}: {self.where}"


def find_static_keys(api: Cluster, *namespaces: str) -> list[KeyPlace]:
    """Return every place where a pod, or a pod template, of these namespaces could read a key."""
    return [place for namespace in namespaces for place in search_namespace(api, namespace)]


def search_namespace(api: Cluster, namespace: str) -> list[KeyPlace]:
    """Return the places of one namespace, sorted."""
    stored = {f"{kind}/{name}": data for kind, name, data in list_stored_values(api, namespace)}
    found: set[KeyPlace] = set()
    for name, spec in list_pod_specs(api, namespace):
        found.update(KeyPlace(name, where) for where in find_places(spec, stored))
    for pod in list_running_pods(api, namespace):
        for container in pod.spec.containers:
            known = read_variable_names(api, pod, container.name) & VARIABLES
            found.update(KeyPlace(pod.metadata.name, f"variable {name}") for name in known)
    return sorted(found, key=str)


def list_pod_specs(api: Cluster, namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the spec, as plain objects, of each pod and pod template."""
    plain = api.core.api_client.sanitize_for_serialization
    with translating_errors():
        templates = api.core.list_namespaced_pod_template(namespace, _request_timeout=CALL_SECONDS)
    for pod in api.list_pods(namespace):
        yield pod.metadata.name, plain(pod.spec)
    for one in templates.items:
        yield f"PodTemplate {one.metadata.name}", plain(one.template.spec)


def list_stored_values(api: Cluster, namespace: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield kind, name and values of each ConfigMap and Secret."""
    import base64

    with translating_errors():
        maps = api.core.list_namespaced_config_map(namespace, _request_timeout=CALL_SECONDS).items
        hidden = api.core.list_namespaced_secret(namespace, _request_timeout=CALL_SECONDS).items
    for one in maps:
        yield "ConfigMap", one.metadata.name, one.data or {}
    for one in hidden:
        values = {key: base64.b64decode(value) for key, value in (one.data or {}).items()}
        texts = {key: value.decode("utf-8", "replace") for key, value in values.items()}
        yield "Secret", one.metadata.name, texts


def find_places(spec: dict[str, Any], stored: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield the places where a pod of this spec could read a key, in words."""
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for variable in container.get("env") or []:
            if variable["name"] in VARIABLES or WORDS.search(variable_value(variable, stored)):
                yield f"variable {variable['name']}"
        for source in container.get("envFrom") or []:
            yield from find_in_source(source, stored)
    for volume in spec.get("volumes") or []:
        yield from find_in_volume(volume, stored)


def variable_value(variable: dict[str, Any], stored: dict[str, dict[str, str]]) -> str:
    """Return a variable's value: its own, or that of a key of a Secret or ConfigMap."""
    source = variable.get("valueFrom") or {}
    for kind, reference in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        if inner := source.get(reference):
            return stored.get(f"{kind}/{inner.get('name')}", {}).get(str(inner.get("key")), "")
    return variable.get("value") or ""


def find_in_source(source: dict[str, Any], stored: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield the keys among the variables that a whole ConfigMap or Secret becomes."""
    for kind, reference in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
        name = (source.get(reference) or {}).get("name")
        for key, text in stored.get(f"{kind}/{name}", {}).items():
            if source.get("prefix", "") + key in VARIABLES or WORDS.search(text):
                yield f"{kind} {name}, as variable {key}"


def find_in_volume(volume: dict[str, Any], stored: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield the keys in the files that a volume is made of."""
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for kind, word in (("Secret", "secret"), ("ConfigMap", "configMap")):
        for source in sources:
            inner = source.get(word) or {}
            name = inner.get("secretName") or inner.get("name")
            texts = stored.get(f"{kind}/{name}", {})
            if any(WORDS.search(text) or key in VARIABLES for key, text in texts.items()):
                yield f"{kind} {name}, as a file"


def list_running_pods(api: Cluster, namespace: str) -> Iterable[Any]:
    return [pod for pod in api.list_pods(namespace) if pod.status.phase == "Running"]


def read_variable_names(api: Cluster, pod: Any, container: str) -> set[str]:
    """Return the names of the variables that a container started with.

    There are none for an image without a shell, or a pod that has ended by now. Raises LabError
    when the cluster does not let us look.
    """
    where = ("--namespace", pod.metadata.namespace, pod.metadata.name, "--container", container)
    try:
        said = api.kubectl("exec", *where, "--", "sh", "-c", NAMES, timeout=CALL_SECONDS)
    except LabError as error:
        if BLIND.search(error.output):
            return set()
        raise
    return set(said.split())


def list_pods_without_identity(api: Cluster, namespace: str, accounts: Iterable[str]) -> list[str]:
    """List the running pods of these service accounts that were given no identity: older ones."""
    return [
        pod.metadata.name
        for pod in list_running_pods(api, namespace)
        if pod.spec.service_account_name in set(accounts)
        and not any(v.name == IDENTITY for c in pod.spec.containers for v in c.env or [])
    ]
