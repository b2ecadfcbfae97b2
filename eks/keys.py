"""Static keys: whether any pod could read one. Where pods have an identity, there is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lab.cluster.api import CALL_SECONDS, Cluster, answers_known
from lab.errors import LabError

# What botocore and the other SDKs read keys from, and how a key of AWS's looks: IAM's documentation
# of unique identifiers has the prefixes.
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
# What kubectl says of an image without a shell, and of a pod or container that is gone.
BLIND = re.compile(
    "executable file not found|no such file|not found|completed pod|not running|is terminated",
    re.IGNORECASE,
)
IDENTITY = "AWS_CONTAINER_CREDENTIALS_FULL_URI"  # what EKS gives a pod that has an identity


@dataclass(frozen=True)
class Found:
    """A place from which a pod can read a static key."""

    pod: str
    where: str

    def __str__(self) -> str:
        return f"{self.pod}: {self.where}"


def static(api: Cluster, namespace: str) -> list[Found]:
    """Every place in which a pod, or a template of pods, of this namespace could find a key."""
    stored = {f"{kind}/{name}": data for kind, name, data in contents(api, namespace)}
    found: set[Found] = set()
    for name, spec in specs(api, namespace):
        found.update(Found(name, where) for where in places(spec, stored))
    for pod in running(api, namespace):
        for container in pod.spec.containers:
            known = live(api, pod, container.name) & VARIABLES
            found.update(Found(pod.metadata.name, f"variable {name}") for name in known)
    return sorted(found, key=str)


def specs(api: Cluster, namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods that there are and those that templates would make, as plain objects."""
    plain = api.core.api_client.sanitize_for_serialization
    with answers_known():
        templates = api.core.list_namespaced_pod_template(namespace, _request_timeout=CALL_SECONDS)
    for pod in api.pods(namespace):
        yield pod.metadata.name, plain(pod.spec)
    for one in templates.items:
        yield f"PodTemplate {one.metadata.name}", plain(one.template.spec)


def contents(api: Cluster, namespace: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Kind, name and values of each ConfigMap and Secret."""
    import base64

    with answers_known():
        maps = api.core.list_namespaced_config_map(namespace, _request_timeout=CALL_SECONDS).items
        hidden = api.core.list_namespaced_secret(namespace, _request_timeout=CALL_SECONDS).items
    for one in maps:
        yield "ConfigMap", one.metadata.name, one.data or {}
    for one in hidden:
        values = {key: base64.b64decode(value) for key, value in (one.data or {}).items()}
        texts = {key: value.decode("utf-8", "replace") for key, value in values.items()}
        yield "Secret", one.metadata.name, texts


def places(spec: dict[str, Any], stored: dict[str, dict[str, str]]) -> Iterator[str]:
    """Where a pod of this description could read a key, in words."""
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for variable in container.get("env") or []:
            if variable["name"] in VARIABLES or WORDS.search(value_of(variable, stored)):
                yield f"variable {variable['name']}"
        for source in container.get("envFrom") or []:
            yield from of_source(source, stored)
    for volume in spec.get("volumes") or []:
        yield from of_volume(volume, stored)


def value_of(variable: dict[str, Any], stored: dict[str, dict[str, str]]) -> str:
    """What a variable holds: a value, or a key's of a Secret or ConfigMap."""
    said = variable.get("valueFrom") or {}
    for kind, reference in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        if inner := said.get(reference):
            return stored.get(f"{kind}/{inner.get('name')}", {}).get(str(inner.get("key")), "")
    return variable.get("value") or ""


def of_source(source: dict[str, Any], stored: dict[str, dict[str, str]]) -> Iterator[str]:
    """Keys among the variables that a whole ConfigMap or Secret becomes."""
    for kind, reference in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
        name = (source.get(reference) or {}).get("name")
        for key, text in stored.get(f"{kind}/{name}", {}).items():
            if source.get("prefix", "") + key in VARIABLES or WORDS.search(text):
                yield f"{kind} {name}, as variable {key}"


def of_volume(volume: dict[str, Any], stored: dict[str, dict[str, str]]) -> Iterator[str]:
    """Keys in the files that a volume is made of."""
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for kind, word in (("Secret", "secret"), ("ConfigMap", "configMap")):
        for source in sources:
            inner = source.get(word) or {}
            name = inner.get("secretName") or inner.get("name")
            texts = stored.get(f"{kind}/{name}", {})
            if any(WORDS.search(text) or key in VARIABLES for key, text in texts.items()):
                yield f"{kind} {name}, as a file"


def running(api: Cluster, namespace: str) -> Iterable[Any]:
    return [pod for pod in api.pods(namespace) if pod.status.phase == "Running"]


def live(api: Cluster, pod: Any, container: str) -> set[str]:
    """The names of the variables that a container began with.

    None for an image without a shell, or a pod that has ended by now. Raises LabError when the
    cluster does not let us look.
    """
    where = ("--namespace", pod.metadata.namespace, pod.metadata.name, "--container", container)
    try:
        said = api.kubectl("exec", *where, "--", "sh", "-c", NAMES, timeout=CALL_SECONDS)
    except LabError as error:
        if BLIND.search(error.what):
            return set()
        raise
    return set(said.split())


def without_identity(api: Cluster, namespace: str, accounts: Iterable[str]) -> list[str]:
    """The running pods of these service accounts that EKS gave no identity: they are older."""
    return [
        pod.metadata.name
        for pod in running(api, namespace)
        if pod.spec.service_account_name in set(accounts)
        and not any(v.name == IDENTITY for c in pod.spec.containers for v in c.env or [])
    ]
