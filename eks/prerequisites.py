"""What options need in the cluster and no apply installs: checked, and asked for if missing."""

from __future__ import annotations

from dataclasses import dataclass

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
