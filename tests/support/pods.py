"""Rules that every pod of a rendering keeps, and who of them may talk to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import yaml

from tests.support.renderings import POD_FILE, Object, Pod, namespace_of, of_kind

UNITS = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# The chart gives the triggerer no probe but of its liveness; its port only offers logs.
NEVER_ASKED = {"triggerer"}
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


def own(pod: Pod, container: Object, key: str) -> Any:
    """A setting of the security context: the container's, or else its pod's."""
    for part in (container, pod.spec):
        if key in (part.get("securityContext") or {}):
            return part["securityContext"][key]
    return None


def has_requests_and_limits(_: Pod, container: Object) -> bool:
    resources = container.get("resources") or {}
    return all(
        {"cpu", "memory"} <= set(resources.get(side) or {}) for side in ("requests", "limits")
    )


def has_a_pinned_image(_: Pod, container: Object) -> bool:
    name, _, digest = container["image"].partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(digest) or tag not in {"", "latest"}


def is_not_root(pod: Pod, container: Object) -> bool:
    user = own(pod, container, "runAsUser")
    return own(pod, container, "runAsNonRoot") is True and bool(user != 0)


def has_the_default_seccomp_profile(pod: Pod, container: Object) -> bool:
    profile = own(pod, container, "seccompProfile") or {}
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
    """No namespace, port, path or kernel setting of the node."""
    shared = any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    kinds = {key for volume in pod.spec.get("volumes") or [] for key in volume} - {"name"}
    ports = any(port.get("hostPort") for port in container.get("ports") or [])
    return not shared and not ports and kinds <= VOLUMES and is_confined(pod, container)


def is_confined(pod: Pod, container: Object) -> bool:
    """What else Pod Security calls restricted: it leaves these settings alone."""
    loose = ("procMount", "seLinuxOptions", "appArmorProfile", "windowsOptions", "sysctls")
    return not any(own(pod, container, key) for key in loose)


def has_a_read_only_root(_: Pod, container: Object) -> bool:
    return (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is True


def can_write_temporary_files(pod: Pod, container: Object) -> bool:
    """Nearly every program does, and dies where /tmp is part of a read-only root."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or []}
    mounts = {m["mountPath"]: m for m in container.get("volumeMounts") or []}
    mount = mounts.get("/tmp", {})
    return "emptyDir" in volumes.get(mount.get("name"), {}) and not mount.get("readOnly")


def is_probed_while_it_lives(pod: Pod, container: Object) -> bool:
    return pod.ends or container in pod.starting or "livenessProbe" in container


def is_probed_before_it_serves(pod: Pod, container: Object) -> bool:
    if pod.ends or container in pod.starting or not container.get("ports"):
        return True
    asked = {"readinessProbe", "startupProbe"} & set(container)
    return bool(asked) or container["name"] in NEVER_ASKED


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


def offenders(rule: Rule, found: Iterable[Pod]) -> list[str]:
    """The containers that break a rule."""
    return [
        f"{pod.name}, container {container['name']}"
        for pod in found
        for container in pod.containers
        if not rule(pod, container)
    ]


def change(found: Any, path: str, value: object) -> None:
    """The value at a path of keys is another; `None` takes it away."""
    *parents, last = path.split(".")
    for key in parents:
        found = found[int(key)] if key.isdigit() else found.setdefault(key, {})
    found.pop(last, None)
    if value is not None:
        found[last] = value


def quantity(text: object) -> float:
    """A quantity of Kubernetes: bytes or cores."""
    word = str(text)
    unit = word.lstrip("0123456789.")
    return float(word.removesuffix(unit)) * (UNITS[unit] if unit else 1)


def takes(pod: Pod, side: str, what: str) -> float:
    """What a pod may take or asks for: its containers together, or one that starts before them."""
    amounts = [
        [quantity(container["resources"][side][what]) for container in containers]
        for containers in (pod.starting, pod.staying)
    ]
    return pod.count * max(*amounts[0], sum(amounts[1]), 0.0)


def is_task(pod: Pod) -> bool:
    return "PodTemplate" in pod.name or "ConfigMap" in pod.name


def sum_of(found: Iterable[Pod], side: str, what: str) -> float:
    return sum(takes(pod, side, what) for pod in found)


@dataclass(frozen=True)
class Peer:
    """A pod as network policies see it; `outside` is anything that is no pod of these."""

    namespace: str
    labels: Mapping[str, str]
    address: str | None = None  # of what is no pod


OUTSIDE = Peer("outside", {})
NAME_SERVER = Peer("kube-system", {"k8s-app": "kube-dns"})
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
AIRFLOW = (*COMPONENTS, "run-airflow-migrations")


def short(pod: Pod) -> str:
    made_by = pod.name.split()[-1]
    return "worker" if made_by == "airflow-config" else made_by.removeprefix("airflow-")


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    same = all(labels.get(k) == v for k, v in (selector.get("matchLabels") or {}).items())
    return same and all(meets(labels, rule) for rule in selector.get("matchExpressions") or [])


def meets(labels: Mapping[str, str], rule: Object) -> bool:
    value, among = labels.get(rule["key"]), rule.get("values") or []
    answers = {
        "In": value in among,
        "NotIn": value not in among,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return answers[rule["operator"]]


def namespace_labels(name: str) -> dict[str, str]:
    """A namespace's labels, with the one that Kubernetes adds."""
    found = [
        o["metadata"] for o in of_kind("Namespace", "overlay") if o["metadata"]["name"] == name
    ]
    given: dict[str, str] = found[0].get("labels", {}) if found else {}
    return {**given, "kubernetes.io/metadata.name": name}


def is_among(selectors: list[Object] | None, home: str, other: Peer) -> bool:
    """Whether a rule of a policy in namespace `home` means this peer; no selectors mean all."""
    return not selectors or any(means(one, home, other) for one in selectors)


def means(selector: Object, home: str, other: Peer) -> bool:
    if "ipBlock" in selector:
        return other.address is not None and is_within(other.address, selector["ipBlock"])
    return selects(selector.get("podSelector") or {}, other.labels) and (
        selects(selector["namespaceSelector"], namespace_labels(other.namespace))
        if "namespaceSelector" in selector
        else other.namespace == home
    )


def is_within(address: str, block: Object) -> bool:
    """Whether an address is in a block, and not in a part of it that is left out."""
    inside = ip_address(address) in ip_network(block["cidr"])
    return inside and not any(is_within(address, {"cidr": c}) for c in block.get("except") or [])


def is_open(ports: list[Object] | None, protocol: str, number: int) -> bool:
    """Whether a rule means this port; no ports mean all."""
    assert all(isinstance(one["port"], int) and "endPort" not in one for one in ports or [])
    return not ports or any(
        one.get("protocol", "TCP") == protocol and one["port"] == number for one in ports
    )


def permits(
    policies: list[Object], way: str, of: Peer, other: Peer, protocol: str, number: int
) -> bool:
    """Whether the policies of a pod let it talk (`egress`) or be talked to (`ingress`)."""
    if of in (OUTSIDE, NAME_SERVER) or of.address:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if namespace_of(policy) == of.namespace
        and way.title() in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], of.labels)
    ]
    side = "to" if way == "egress" else "from"
    return not mine or any(
        is_among(rule.get(side), of.namespace, other)
        and is_open(rule.get("ports"), protocol, number)
        for spec in mine
        for rule in spec.get(way) or []
    )


def references(part: object) -> Iterator[tuple[str, str]]:
    """The Secrets and their keys that something asks for."""
    if isinstance(part, list):
        for item in part:
            yield from references(item)
    if isinstance(part, dict):
        if "secretKeyRef" in part:
            yield part["secretKeyRef"]["name"], part["secretKeyRef"]["key"]
        for key, value in part.items():
            yield from references(yaml.safe_load(value) if key == POD_FILE else value)
