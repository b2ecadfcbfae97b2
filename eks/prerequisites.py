"""What options need in the cluster and no apply brings: it is there, or it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from eks.environment import OPTIONS, Environment
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW
from lab.errors import PromotionError


@dataclass(frozen=True)
class Needed:
    """One object that a person brings, and which option does not work without it."""

    option: str
    name: str  # as kubectl takes it
    meaning: str
    namespace: str | None = None


NEEDED = (
    Needed("rds", "configmap/rds-ca", "RDS's certificates", AIRFLOW),
    Needed("ingress", "ingressclass/alb", "the AWS Load Balancer Controller"),
    Needed(
        "external-secrets",
        "customresourcedefinition/externalsecrets.external-secrets.io",
        "the External Secrets operator",
    ),
)


def check(environment: Environment, api: Cluster) -> None:
    """Raises PromotionError when an option that is on lacks something in the cluster.

    Of a namespace that is not there yet nothing is asked: an apply makes it, and asks then.
    """
    lacking = [one for one in NEEDED if one.option in environment.options and lacks(api, one)]
    if lacking:
        listed = "".join(f"\n    {one.option}: {one.name}, {one.meaning}" for one in lacking)
        files = ", ".join(str(OPTIONS / one.option / "kustomization.yaml") for one in lacking)
        raise PromotionError(
            f"the cluster lacks what options need:{listed}",
            f"bring it, as {files} says, by kubectl --kubeconfig {api.kubeconfig};"
            " then the same command again: it goes on where it stopped",
        )


def lacks(api: Cluster, needed: Needed) -> bool:
    """Whether the cluster has a place for it, but not the thing."""
    if needed.namespace and not found(api, f"namespace/{needed.namespace}"):
        return False
    where = ("--namespace", needed.namespace) if needed.namespace else ()
    return not found(api, needed.name, *where)


def found(api: Cluster, *words: str) -> bool:
    return bool(api.kubectl("get", *words, "--ignore-not-found", "--output", "name").strip())
