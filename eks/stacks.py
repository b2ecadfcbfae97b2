"""The CloudFormation stacks in which eksctl keeps what it makes; they go on when it is killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eks import aws
from eks.aws import (
    call_or_none,
    error_from_text,
    list_all,
    wait_until_settled,
)
from eks.site import Site, is_ours, tags_from_list
from lab.wait import NotYet

# eksctl's own tag of each of its stacks, and the end of the name of the one with the network.
OWNER = "alpha.eksctl.io/cluster-name"
NETWORK_STACK = "eksctl-{cluster}-cluster"


def list_stacks(site: Site) -> list[dict[str, Any]]:
    """List the stacks of this cluster; the one with the network, which the others use, is last."""
    client = site.aws.client("cloudformation")
    found = list_all("list the stacks", client, "describe_stacks", "Stacks")
    name = site.environment.cluster
    mine = [
        s
        for s in found
        if stack_tags(s).get(OWNER) == name and is_ours(site.environment, stack_tags(s))
    ]
    return sorted(mine, key=lambda stack: stack["StackName"] == network_stack_name(site))


def stack_tags(stack: Mapping[str, Any]) -> dict[str, str]:
    return tags_from_list(stack.get("Tags", []))


def network_stack_name(site: Site) -> str:
    return NETWORK_STACK.format(cluster=site.environment.cluster)


def list_stack_failures(site: Site) -> list[str]:
    """Return the first failure of each stack that has failed, in the words of CloudFormation."""
    client = site.aws.client("cloudformation")
    reasons = []
    for stack in list_stacks(site):
        if "FAILED" not in stack["StackStatus"] and "ROLLBACK" not in stack["StackStatus"]:
            continue
        doing, name = "read why a stack failed", stack["StackName"]
        events = list_all(doing, client, "describe_stack_events", "StackEvents", StackName=name)
        why = [e for e in events if e["ResourceStatus"].endswith("FAILED")]  # the newest first
        reasons += [f"{name}: {e.get('ResourceStatusReason', '')}" for e in why[-1:]]
    return reasons


def wait_for_stacks(site: Site) -> None:
    """Wait until CloudFormation is done with all of this cluster's stacks."""

    def check() -> None:
        for stack in list_stacks(site):
            if stack["StackStatus"].endswith("_IN_PROGRESS"):
                raise NotYet(f"{stack['StackName']} is {stack['StackStatus']}")

    wait_until_settled(
        check,
        what="what eksctl had begun",
        timeout=aws.CLUSTER_SECONDS,
        interval=aws.CLUSTER_INTERVAL,
    )


def delete_stacks(site: Site) -> None:
    """Delete all stacks of a cluster that does not exist. Raises LabError's children."""
    delete = site.aws.client("cloudformation").delete_stack
    for network in (False, True):  # the others are in it
        wait_for_stacks(site)
        for stack in list_stacks(site):
            name = stack["StackName"]
            if network or name != network_stack_name(site):
                call_or_none(f"delete stack {name}", delete, StackName=name)
    wait_for_stacks(site)
    if left := list_stacks(site):
        names = ", ".join(stack["StackName"] for stack in left)
        raise error_from_text(
            f"CloudFormation could not delete {names}", "\n".join(list_stack_failures(site))
        )


def delete_stacks_of(site: Site, what: str, names: set[str]) -> None:
    """Delete the stacks of node groups or add-ons that do not exist: eksctl would skip these."""
    delete = site.aws.client("cloudformation").delete_stack
    prefixes = tuple(f"eksctl-{site.environment.cluster}-{what}-{name}-" for name in names)
    for stack in list_stacks(site):
        name = stack["StackName"]
        if f"{name}-".startswith(prefixes):
            call_or_none(f"delete stack {name}", delete, StackName=name)
    wait_for_stacks(site)
