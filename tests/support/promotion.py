"""What EKS gets: its options, its node groups, its network policies."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from eks import environment
from lab.config import KIT
from tests.support.pods import AIRFLOW, COMPONENTS, NAME_SERVER, OUTSIDE, Peer, permits, short_name
from tests.support.renderings import POD_FILE, Object, Pod

EKS = ("eks", "eks-chart")
ALL = tuple(sorted(folder.name for folder in (KIT / environment.OPTIONS).iterdir()))
ADDRESSES = {
    "s3": "52.219.170.1",
    "github": "140.82.121.3",
    "agent": "169.254.170.23",
    "agent-6": "fd00:ec2::23",
    "metadata": "169.254.169.254",
    "metadata-6": "fd00:ec2::254",
    "in-the-vpc": "10.20.3.4",
    "rds": "10.20.30.40",
}


def dump_objects(found: Iterable[Object]) -> str:
    """Return the objects as JSON, without the plugins' code."""
    return json.dumps([o for o in found if o["metadata"]["name"] != "airflow-plugins"])


def read_node_groups() -> dict[str, Object]:
    """Return the cluster's node groups, by the role in their label."""
    text = (KIT / "eks" / "cluster.yaml").read_text("utf-8")
    found = yaml.safe_load(text)["managedNodeGroups"]
    return {group["labels"]["mlops-lab/role"]: group for group in found}


def can_run_on(pod: Pod, group: Object) -> bool:
    """Return whether a pod may run on this group's nodes."""
    known = pod.spec.get("tolerations") or []
    taints = group.get("taints") or []
    chosen = pod.spec.get("nodeSelector") or {}
    return chosen.items() <= group["labels"].items() and all(
        any(tolerates(one, taint) for one in known) for taint in taints
    )


def tolerates(toleration: Object, taint: Object) -> bool:
    return (
        toleration["key"] == taint["key"]
        and toleration.get("effect", taint["effect"]) == taint["effect"]
        and (toleration.get("operator") == "Exists" or toleration["value"] == taint["value"])
    )


def find_peer(name: str, found: Iterable[Pod]) -> Peer:
    """Return the peer of that name: a pod by its short name, or an address."""
    if name in ADDRESSES:
        return Peer("outside", {}, ADDRESSES[name])
    if name in {"names", "outside"}:
        return NAME_SERVER if name == "names" else OUTSIDE
    one = next(pod for pod in found if short_name(pod) == name)
    return Peer(one.namespace, dict(one.labels))


def can_connect(rendered: Iterable[Object], found: Iterable[Pod], *way: Any) -> bool:
    """Return whether a rendering's policies let a pod open a connection.

    `way` is source, target and port, and a protocol if it is not TCP.
    """
    one, other, number, *over = way
    policies = [o for o in rendered if o["kind"] == "NetworkPolicy"]
    source, target = find_peer(one, found), find_peer(other, found)
    protocol = over[0] if over else "TCP"
    return permits(policies, "egress", source, target, protocol, number) and permits(
        policies, "ingress", target, source, protocol, number
    )


STEPS = ("step", "model", "training")
OUT = ("scheduler", "worker", "triggerer", "dag-processor")
NEEDED = (
    *((name, where, 443) for name in (*STEPS, *OUT) for where in ("s3", "github")),
    *((name, where, 80) for name in (*STEPS, *OUT) for where in ("agent", "agent-6")),
    *((name, "postgresql", 5432) for name in AIRFLOW),
    *((name, "api-server", 8080) for name in COMPONENTS),
    *((name, "names", 53, "UDP") for name in ("step", *AIRFLOW)),
    ("scheduler", "in-the-vpc", 443),  # the Kubernetes API
)
REFUSED = (
    *((name, where, 443) for name in ("step", "triggerer") for where in ("metadata", "metadata-6")),
    *((name, "metadata", 80) for name in ("step", *COMPONENTS)),
    *((name, "github", number) for name in ("step", *COMPONENTS) for number in (22, 80)),
    ("api-server", "agent", 80),  # it has no business with the bucket
    ("step", "postgresql", 5432),
    ("step", "rds", 5432),
    ("scheduler", "rds", 5432),
    ("step", "api-server", 8080),
    ("step", "in-the-vpc", 8080),
    ("outside", "api-server", 8080),
    ("in-the-vpc", "api-server", 8080),
    ("outside", "postgresql", 5432),
    ("postgresql", "s3", 443),
    ("postgresql", "agent", 80),
    ("api-server", "scheduler", 8793),
)


def parse_airflow_config(found: Iterable[Object]) -> configparser.RawConfigParser:
    (held,) = (o for o in found if o["metadata"]["name"] == "airflow-config")
    parser = configparser.RawConfigParser()
    parser.read_string(held["data"]["airflow.cfg"])
    return parser


def find_secrets(part: object) -> Iterator[str]:
    """Yield the Secrets without which a pod would not start."""
    if isinstance(part, list):
        for item in part:
            yield from find_secrets(item)
    if isinstance(part, dict):
        for key in ("secretKeyRef", "secretRef", "secret"):
            if isinstance(part.get(key), dict):
                yield part[key].get("name") or part[key]["secretName"]
        for key, value in part.items():
            yield from find_secrets(yaml.safe_load(value) if key == POD_FILE else value)


CUSTOM = {"ExternalSecret", "SecretStore"}  # of the External Secrets operator
