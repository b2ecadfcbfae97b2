"""The add-on that gives pods their identities, for a cluster that no `apply` makes."""

from __future__ import annotations

from eks import aws
from eks.aws import (
    call_aws,
    call_or_none,
    error_from_text,
    list_all,
    list_cluster_parts,
    wait_until_settled,
)
from eks.site import Site
from lab.wait import NotYet

ADDON = "add-on"  # the ledger's kind
AGENT = "eks-pod-identity-agent"


def ensure_agent(site: Site) -> None:
    """Add the agent unless the cluster has it.

    One that was there before, which the ledger does not name, is left alone.
    """
    name = addon_name(site)
    if not site.ledger.find(ADDON, name) and AGENT in list_cluster_parts(
        site.aws, site.environment.cluster, "addons"
    ):
        return
    with site.ledger.making(ADDON, name) as facts:
        if AGENT not in list_cluster_parts(site.aws, site.environment.cluster, "addons"):
            call_aws(
                f"add {AGENT}",
                site.aws.client("eks").create_addon,
                clusterName=site.environment.cluster,
                addonName=AGENT,
                tags=site.environment.tags,
            )
        facts["arn"] = wait_until_settled(
            lambda: find_active_agent(site),
            what=AGENT,
            timeout=aws.CLUSTER_SECONDS,
            interval=aws.CLUSTER_INTERVAL,
        )


def addon_name(site: Site) -> str:
    return f"{site.environment.cluster}/{AGENT}"


def find_active_agent(site: Site) -> str:
    """Return the ARN of the add-on. Raise NotYet until it runs, PromotionError when it can not."""
    look = site.aws.client("eks").describe_addon
    said = call_aws(f"look at {AGENT}", look, clusterName=site.environment.cluster, addonName=AGENT)
    state, issues = said["addon"]["status"], said["addon"].get("health", {}).get("issues", [])
    if state.endswith("FAILED"):
        raise error_from_text(
            f"{AGENT} is {state}", "\n".join(issue["message"] for issue in issues)
        )
    if state not in ("ACTIVE", "DEGRADED"):  # without a node it has nowhere to run yet
        raise NotYet(f"it is {state}")
    return str(said["addon"]["addonArn"])


def remove_agent(site: Site) -> None:
    """Remove the agent that an `apply` added, unless pods of others use it by now."""
    cluster, name = site.environment.cluster, addon_name(site)
    if site.ledger.find(ADDON, name):
        if has_associations(site):
            print(f"  {AGENT} stays in {cluster}: others there get their identities from it")
        else:
            delete = site.aws.client("eks").delete_addon
            call_or_none(f"remove {AGENT}", delete, clusterName=cluster, addonName=AGENT)
    site.ledger.forget(ADDON, name)


def has_associations(site: Site) -> bool:
    """Return whether any pod of the cluster has an identity; ours have none any more."""
    eks, cluster = site.aws.client("eks"), site.environment.cluster
    doing, key = f"list the associations of {cluster}", "associations"
    return bool(list_all(doing, eks, "list_pod_identity_associations", key, clusterName=cluster))
