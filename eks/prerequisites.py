"""What a cluster needs and no apply installs: checked, and asked for if missing.

Options need objects. A cluster that no apply has made needs nodes with the labels that pods ask
for, and something that enforces network policies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eks.environment import OPTIONS, Environment
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW
from lab.errors import PromotionError


@dataclass(frozen=True)
class Prerequisite:
    """One object that a person installs, and the option that does not work without it."""

    option: str
    name: str  # as kubectl takes it
    meaning: str
    namespace: str | None = None


PREREQUISITES = (
    Prerequisite("rds", "configmap/rds-ca", "RDS's certificates", AIRFLOW),
    Prerequisite("ingress", "ingressclass/alb", "the AWS Load Balancer Controller"),
    Prerequisite(
        "external-secrets",
        "customresourcedefinition/externalsecrets.external-secrets.io",
        "the External Secrets operator",
    ),
)


def check(environment: Environment, api: Cluster) -> None:
    """Raise PromotionError when an option that is on lacks something in the cluster.

    A namespace that does not exist yet is not checked: an apply creates it, and checks then.
    """
    lacking = [
        one for one in PREREQUISITES if one.option in environment.options and is_missing(api, one)
    ]
    if lacking:
        listed = "".join(f"\n    {one.option}: {one.name}, {one.meaning}" for one in lacking)
        files = ", ".join(str(OPTIONS / one.option / "kustomization.yaml") for one in lacking)
        raise PromotionError(
            f"the cluster lacks what options need:{listed}",
            f"bring it, as {files} says, by kubectl --kubeconfig {api.kubeconfig};"
            " then the same command again: it goes on where it stopped",
        )


def is_missing(api: Cluster, needed: Prerequisite) -> bool:
    """Return whether the object is missing. Before its namespace exists, it is not."""
    if needed.namespace and not exists(api, f"namespace/{needed.namespace}"):
        return False
    where = ("--namespace", needed.namespace) if needed.namespace else ()
    return not exists(api, needed.name, *where)


def exists(api: Cluster, *words: str) -> bool:
    """Return whether the cluster has the object, named as for `kubectl get`."""
    return bool(api.kubectl("get", *words, "--ignore-not-found", "--output", "name").strip())


# --- A cluster that no apply has made -----------------------------------------------------------

ROLE = "mlops-lab/role"  # the label of the nodes that pods ask for
# Nodes that pods ask for with an option, and that may be added when one does.
ON_DEMAND = {"steps": "spot", "training": "gpu"}
# Amazon's DaemonSet, whose agent enforces policies when it is told to; others that do it always.
AMAZONS, SWITCH = "aws-node", "--enable-network-policy=true"
ENGINES = {"calico-node", "cilium", "canal"}


def check_adopted(environment: Environment, api: Cluster) -> list[str]:
    """Return a line about each thing in the cluster that the user should know of.

    Raise PromotionError when no node is for Airflow, or network policies have no effect.
    """
    if environment.make_cluster:
        return []
    roles = {node["metadata"].get("labels", {}).get(ROLE) for node in list_objects(api, "nodes")}
    if "airflow" not in roles:
        raise PromotionError(
            f"no node of the cluster has the label {ROLE}=airflow, which Airflow's pods ask for",
            f"label some that are not taken away: kubectl label node NAME {ROLE}=airflow",
        )
    return [*find_absent_nodes(environment, roles), *check_policies(api)]


def find_absent_nodes(environment: Environment, roles: set[str | None]) -> Iterator[str]:
    for role, option in ON_DEMAND.items():
        if option in environment.options and role not in roles:
            yield f"no node has {ROLE}={role} now: pods that ask for it wait until one is added"


def check_policies(api: Cluster) -> list[str]:
    """Return a line if nothing is known to enforce network policies. Raise PromotionError.

    It is raised where Amazon's agent is there, and nobody told it to.
    """
    known = {one["metadata"]["name"]: one for one in list_objects(api, "daemonsets", "-A")}
    if ENGINES & {*known}:
        return []
    if AMAZONS not in known:
        return ["nothing is known here that enforces network policies: make sure that they count"]
    containers = known[AMAZONS]["spec"]["template"]["spec"]["containers"]
    if not any(SWITCH in container.get("args", ()) for container in containers):
        raise PromotionError(
            "network policies have no effect in the cluster: the add-on vpc-cni was not told to",
            'configure it: eksctl update addon, with configurationValues {"enableNetworkPolicy":'
            ' "true"}; or bring another engine (Calico, policies only)',
        )
    return []


def list_objects(api: Cluster, kinds: str, *where: str) -> list[dict[str, Any]]:
    """List the objects of these kinds, where kubectl's words say."""
    shown = api.kubectl("get", kinds, *where, "--output", "json")
    found: list[dict[str, Any]] = json.loads(shown)["items"]
    return found
