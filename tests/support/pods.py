"""Rules that every pod of a rendering must keep, and which pods may connect to which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import yaml

from tests.support.renderings import POD_FILE, Object, Pod, namespace_of, objects_of_kind

UNITS = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# The chart gives the triggerer a liveness probe alone; its port only serves logs.
UNPROBED = {"triggerer"}
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def security_setting(pod: Pod, container: Object, key: str) -> Any:
    """Return a setting of the container's security context, or else of its pod's."""
    for part in (container, pod.spec):
        if key in (part.get("securityContext") or {}):
            return part["securityContext"][key]
    return None


def has_requests_and_limits(_: Pod, container: Object) -> bool:
    resources = container.get("resources") or {}
    sides = (set(resources.get(side) or {}) for side in ("requests", "limits"))
    return all({"cpu", "memory", "ephemeral-storage"} <= side for side in sides)


def has_a_pinned_image(_: Pod, container: Object) -> bool:
    name, _, digest = container["image"].partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(digest) or tag not in {"", "latest"}


def is_not_root(pod: Pod, container: Object) -> bool:
    user = security_setting(pod, container, "runAsUser")
    return security_setting(pod, container, "runAsNonRoot") is True and bool(user != 0)


def has_the_default_seccomp_profile(pod: Pod, container: Object) -> bool:
    profile = security_setting(pod, container, "seccompProfile") or {}
    return bool(profile.get("type") == "RuntimeDefault")


def gains_no_privileges(_: Pod, container: Object) -> bool:
    context = container.get("securityContext") or {}
    capabilities = context.get("capabilities") or {}
    return (
        context.get("allowPrivilegeEscalation") is False
        and not context.get("privileged")
        and "ALL" in (capabilities.get("drop") or [])
        and not set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}
    )


def keeps_off_the_host(pod: Pod, container: Object) -> bool:
    """Return whether a pod has no namespace, port, path or kernel setting of the node."""
    shared = any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    kinds = {key for volume in pod.spec.get("volumes") or [] for key in volume} - {"name"}
    ports = any(port.get("hostPort") for port in container.get("ports") or [])
    return not shared and not ports and kinds <= VOLUMES and is_confined(pod, container)


def is_confined(pod: Pod, container: Object) -> bool:
    """Return whether a pod leaves alone what else Pod Security's level `restricted` forbids."""
    loose = ("procMount", "seLinuxOptions", "appArmorProfile", "windowsOptions", "sysctls")
    return not any(security_setting(pod, container, key) for key in loose)


def has_a_read_only_root(_: Pod, container: Object) -> bool:
    return (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is True


def can_write_temporary_files(pod: Pod, container: Object) -> bool:
    """Return whether /tmp is a volume: nearly every program needs to write there."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or []}
    mounts = {m["mountPath"]: m for m in container.get("volumeMounts") or []}
    mount = mounts.get("/tmp", {})
    return "emptyDir" in volumes.get(mount.get("name"), {}) and not mount.get("readOnly")


def is_probed_while_it_lives(pod: Pod, container: Object) -> bool:
    return (
        pod.ends_by_itself or container in pod.starting_containers or "livenessProbe" in container
    )


def is_probed_before_it_serves(pod: Pod, container: Object) -> bool:
    if pod.ends_by_itself or container in pod.starting_containers or not container.get("ports"):
        return True
    asked = {"readinessProbe", "startupProbe"} & set(container)
    return bool(asked) or container["name"] in UNPROBED


Rule = Callable[[Pod, Object], bool]
RULES: tuple[Rule, ...] = (
    has_requests_and_limits,
    has_a_pinned_image,
    is_not_root,
    has_the_default_seccomp_profile,
    gains_no_privileges,
    keeps_off_the_host,
    has_a_read_only_root,
    can_write_temporary_files,
    is_probed_while_it_lives,
    is_probed_before_it_serves,
)


def find_offenders(rule: Rule, found: Iterable[Pod]) -> list[str]:
    """List the containers that break a rule."""
    return [
        f"{pod.name}, container {container['name']}"
        for pod in found
        for container in pod.containers
        if not rule(pod, container)
    ]


def set_value(found: Any, path: str, value: object) -> None:
    """Set the value at a dotted path of keys; `None` deletes it."""
    *parents, last = path.split(".")
    for key in parents:
        found = found[int(key)] if key.isdigit() else found.setdefault(key, {})
    found.pop(last, None)
    if value is not None:
        found[last] = value


def parse_quantity(text: object) -> float:
    """Parse a quantity of Kubernetes; return bytes or cores."""
    word = str(text)
    unit = word.lstrip("0123456789.")
    return float(word.removesuffix(unit)) * (UNITS[unit] if unit else 1)


def compute_resource(pod: Pod, side: str, what: str) -> float:
    """Compute a pod's limit or request: its containers' sum, or an init container's if larger."""
    amounts = [
        [parse_quantity(container["resources"][side][what]) for container in containers]
        for containers in (pod.starting_containers, pod.staying_containers)
    ]
    return pod.count * max(*amounts[0], sum(amounts[1]), 0.0)


def is_task(pod: Pod) -> bool:
    return "PodTemplate" in pod.name or "ConfigMap" in pod.name


def sum_resource(found: Iterable[Pod], side: str, what: str) -> float:
    return sum(compute_resource(pod, side, what) for pod in found)


@dataclass(frozen=True)
class Peer:
    """A pod as network policies see it; `outside` is anything else."""

    namespace: str
    labels: Mapping[str, str]
    address: str | None = None  # of a peer that is no pod


OUTSIDE = Peer("outside", {})
NAME_SERVER = Peer("kube-system", {"k8s-app": "kube-dns"})
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
AIRFLOW = (*COMPONENTS, "run-airflow-migrations")


def short_name(pod: Pod) -> str:
    made_by = pod.name.split()[-1]
    return "worker" if made_by == "airflow-config" else made_by.removeprefix("airflow-")


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects these labels; an empty one selects all."""
    same = all(labels.get(k) == v for k, v in (selector.get("matchLabels") or {}).items())
    return same and all(satisfies(labels, rule) for rule in selector.get("matchExpressions") or [])


def satisfies(labels: Mapping[str, str], rule: Object) -> bool:
    value, among = labels.get(rule["key"]), rule.get("values") or []
    answers = {
        "In": value in among,
        "NotIn": value not in among,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return answers[rule["operator"]]


def namespace_labels(name: str) -> dict[str, str]:
    """Return a namespace's labels, with the one that Kubernetes adds."""
    found = [
        o["metadata"]
        for o in objects_of_kind("Namespace", "overlay")
        if o["metadata"]["name"] == name
    ]
    given: dict[str, str] = found[0].get("labels", {}) if found else {}
    return {**given, "kubernetes.io/metadata.name": name}


def is_allowed_peer(selectors: list[Object] | None, home: str, other: Peer) -> bool:
    """Return whether a rule of a policy in namespace `home` names a peer; no selectors mean all."""
    return not selectors or any(matches_peer(one, home, other) for one in selectors)


def matches_peer(selector: Object, home: str, other: Peer) -> bool:
    if "ipBlock" in selector:
        return other.address is not None and is_within(other.address, selector["ipBlock"])
    return selects(selector.get("podSelector") or {}, other.labels) and (
        selects(selector["namespaceSelector"], namespace_labels(other.namespace))
        if "namespaceSelector" in selector
        else other.namespace == home
    )


def is_within(address: str, block: Object) -> bool:
    """Return whether an address is in an `ipBlock` and in none of its exceptions."""
    inside = ip_address(address) in ip_network(block["cidr"])
    return inside and not any(is_within(address, {"cidr": c}) for c in block.get("except") or [])


def is_open(ports: list[Object] | None, protocol: str, number: int) -> bool:
    """Return whether a rule allows this port; no ports mean all."""
    assert all(isinstance(one["port"], int) and "endPort" not in one for one in ports or [])
    return not ports or any(
        one.get("protocol", "TCP") == protocol and one["port"] == number for one in ports
    )


def permits(
    policies: list[Object], way: str, peer: Peer, other: Peer, protocol: str, number: int
) -> bool:
    """Return whether a pod's policies let it connect (`egress`) or be connected to (`ingress`)."""
    if peer in (OUTSIDE, NAME_SERVER) or peer.address:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if namespace_of(policy) == peer.namespace
        and way.title() in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], peer.labels)
    ]
    side = "to" if way == "egress" else "from"
    return not mine or any(
        is_allowed_peer(rule.get(side), peer.namespace, other)
        and is_open(rule.get("ports"), protocol, number)
        for spec in mine
        for rule in spec.get(way) or []
    )


def find_secret_keys(part: object) -> Iterator[tuple[str, str]]:
    """Yield each Secret and key that a part of an object refers to."""
    if isinstance(part, list):
        for item in part:
            yield from find_secret_keys(item)
    if isinstance(part, dict):
        if "secretKeyRef" in part:
            yield part["secretKeyRef"]["name"], part["secretKeyRef"]["key"]
        for key, value in part.items():
            yield from find_secret_keys(yaml.safe_load(value) if key == POD_FILE else value)
