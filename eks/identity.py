"""The pods' identity: an IAM role per kind of pod, given to its service account by Pod Identity.

There are no keys. Who has which role is in `manifests/base/associations.yaml`, which kind reads,
too. What each role may do is in `eks/policies/`, and is what the code in the pods does:
`images/worker` and `images/trainer` for the steps, `dags/` and the plugins for Airflow. Each policy
lets a pod list what it may read: otherwise S3 answers 403 instead of 404 for a missing object. Such
a request has no prefix, hence `IfExists`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eks.aws import (
    call_aws,
    call_or_none,
    find_if_ours,
    foreign_error,
    list_all,
    wait_until_settled,
)
from eks.environment import Environment
from eks.site import Row, Site, is_ours, tag_list, tags_from_list
from lab.cluster import associations
from lab.cluster.associations import Role
from lab.cluster.workloads import AIRFLOW
from lab.config import KIT
from lab.errors import LabError
from lab.wait import NotYet

POLICY, ROLE, ASSOCIATION = "policy", "role", "association"  # the ledger's kinds
VERSIONS = 5  # of a policy, that IAM keeps
KNOWN_SECONDS = 120  # until EKS sees a new role
LOGS = "remote-logs"  # the option


def roles(environment: Environment) -> list[Role]:
    """Return the roles of an environment's pods, by their names in AWS. Raises AssociationError."""
    return [
        replace(role, name=f"{environment.cluster}-{role.name}")
        for role in associations.read_roles(KIT, environment.options)
    ]


def service_accounts(environment: Environment) -> list[str]:
    """Return the service accounts whose pods are given a role."""
    return associations.list_accounts(roles(environment))


def plan(environment: Environment) -> list[Row]:
    """List what `make` creates."""
    return [
        Row("IAM role", role.name, f"Pod Identity of {', '.join(role.accounts)}")
        for role in roles(environment)
    ]


# --- Making -------------------------------------------------------------------------------------


def make(site: Site) -> None:
    """Give each service account its role, and remove roles that accounts should not have.

    A pod gets its role when it starts. Raises NameTaken.
    """
    for role in roles(site.environment):
        for policy in role.policies:
            make_policy(site, policy)
        make_role(site, role)
        for account in role.accounts:
            associate_account(site, role, account)
    remove_unwanted(site)


def policy_name(environment: Environment, policy: str) -> str:
    return f"{environment.cluster}-{policy}"


def policy_arn(site: Site, name: str) -> str:
    return f"arn:{site.aws.partition}:iam::{site.environment.account}:policy/{name}"


def role_arn(site: Site, name: str) -> str:
    return f"arn:{site.aws.partition}:iam::{site.environment.account}:role/{name}"


def render_document(site: Site, policy: str, **more: str) -> dict[str, Any]:
    """Return a file of `eks/policies/`, filled in."""
    file = associations.POLICIES / f"{policy}.json"
    text = (site.kit / file).read_text("utf-8")
    filled = site.environment.fill(text, file, partition=site.aws.partition, **more)
    content: dict[str, Any] = json.loads(filled)
    return content


def make_policy(site: Site, policy: str) -> None:
    """Create or update the policy in IAM from its file."""
    name = policy_name(site.environment, policy)
    wanted = render_document(site, policy)
    found = find_policy(site, name)
    with site.ledger.making(POLICY, name) as facts:
        facts["arn"] = policy_arn(site, name)
        if not found:
            create_policy(site, name, wanted)
        elif read_policy_document(site, found) != wanted:
            replace_policy(site, facts["arn"], wanted)


def find_policy(site: Site, name: str) -> Any:
    """Return IAM's description of the policy; None without one. Raises NameTaken."""
    iam = site.aws.client("iam")
    found = call_or_none(f"look at policy {name}", iam.get_policy, PolicyArn=policy_arn(site, name))
    return found and refuse_foreign(site, POLICY, name, found["Policy"])


def refuse_foreign(site: Site, kind: str, name: str, found: Any) -> Any:
    """Return `found`. Raises NameTaken unless it has this environment's tags."""
    if not is_ours(site.environment, tags_from_list(found.get("Tags", []))):
        raise foreign_error(kind, name, site.environment)
    return found


def create_policy(site: Site, name: str, wanted: dict[str, Any]) -> None:
    call_aws(
        f"make policy {name}",
        site.aws.client("iam").create_policy,
        PolicyName=name,
        PolicyDocument=json.dumps(wanted),
        Tags=tag_list(site.environment),
    )


def read_policy_document(site: Site, policy: Any) -> Any:
    """Return the policy's current document."""
    version = call_aws(
        f"read policy {policy['PolicyName']}",
        site.aws.client("iam").get_policy_version,
        PolicyArn=policy["Arn"],
        VersionId=policy["DefaultVersionId"],
    )
    return version["PolicyVersion"]["Document"]


def replace_policy(site: Site, arn: str, wanted: dict[str, Any]) -> None:
    """Replace the policy's document. IAM keeps five versions: the oldest makes room."""
    old = list_old_versions(site, arn)
    for version in old[: max(0, len(old) + 2 - VERSIONS)]:
        delete_version(site, arn, version)
    call_aws(
        f"change policy {arn}",
        site.aws.client("iam").create_policy_version,
        PolicyArn=arn,
        PolicyDocument=json.dumps(wanted),
        SetAsDefault=True,
    )


def list_old_versions(site: Site, arn: str) -> list[str]:
    """List the versions that are not the default one, the oldest first."""
    iam = site.aws.client("iam")
    doing = f"list the versions of {arn}"
    found = list_all(doing, iam, "list_policy_versions", "Versions", PolicyArn=arn)
    found.sort(key=lambda version: int(version["VersionId"].removeprefix("v")))
    return [version["VersionId"] for version in found if not version["IsDefaultVersion"]]


def delete_version(site: Site, arn: str, version: str) -> None:
    delete = site.aws.client("iam").delete_policy_version
    call_or_none(f"delete version {version} of {arn}", delete, PolicyArn=arn, VersionId=version)


def make_role(site: Site, role: Role) -> None:
    """Create or update the role: it trusts its service accounts here, and has its policies."""
    trust = render_document(site, "trust", namespace=AIRFLOW, accounts='", "'.join(role.accounts))
    found = find_role(site, role.name)
    with site.ledger.making(ROLE, role.name) as facts:
        facts["arn"] = role_arn(site, role.name)
        if not found:
            create_role(site, role.name, trust)
        elif found["AssumeRolePolicyDocument"] != trust:
            call_aws(
                f"change whom role {role.name} trusts",
                site.aws.client("iam").update_assume_role_policy,
                RoleName=role.name,
                PolicyDocument=json.dumps(trust),
            )
        attach_policies(site, role)


def find_role(site: Site, name: str) -> Any:
    """Return IAM's description of the role; None without one. Raises NameTaken."""
    found = call_or_none(f"look at role {name}", site.aws.client("iam").get_role, RoleName=name)
    return found and refuse_foreign(site, ROLE, name, found["Role"])


def create_role(site: Site, name: str, trust: dict[str, Any]) -> None:
    call_aws(
        f"make role {name}",
        site.aws.client("iam").create_role,
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps(trust),
        Description=f"Pods of {site.environment.cluster}, by Pod Identity",
        Tags=tag_list(site.environment),
    )


def attach_policies(site: Site, role: Role) -> None:
    """Give the role its policies and no other."""
    iam = site.aws.client("iam")
    wanted = {policy_arn(site, policy_name(site.environment, name)) for name in role.policies}
    had = list_attached_policies(site, role.name)
    for arn in sorted(wanted - had):
        call_aws(
            f"give {role.name} {arn}", iam.attach_role_policy, RoleName=role.name, PolicyArn=arn
        )
    detach_policies(site, role.name, had - wanted)


def list_attached_policies(site: Site, role: str) -> set[str]:
    iam = site.aws.client("iam")
    doing, key = f"list the policies of {role}", "AttachedPolicies"
    found = list_all(doing, iam, "list_attached_role_policies", key, RoleName=role)
    return {policy["PolicyArn"] for policy in found}


def detach_policies(site: Site, role: str, policies: set[str]) -> None:
    call = site.aws.client("iam").detach_role_policy
    for arn in sorted(policies):
        call_or_none(f"take {arn} from {role}", call, RoleName=role, PolicyArn=arn)


# --- Associations -------------------------------------------------------------------------------


def association_name(environment: Environment, account: str) -> str:
    return f"{environment.cluster}/{AIRFLOW}/{account}"


def associate_account(site: Site, role: Role, account: str) -> None:
    """Give the role to the service account's pods."""
    found = find_association(site, account)
    wanted = role_arn(site, role.name)
    with site.ledger.making(ASSOCIATION, association_name(site.environment, account)) as facts:
        if found and found["roleArn"] == wanted:
            facts["id"] = found["associationId"]
            return
        facts["id"] = wait_until_settled(
            lambda: create_or_update_association(site, account, wanted, found),
            what=f"role {role.name}",
            timeout=KNOWN_SECONDS,
        )


def find_association(site: Site, account: str) -> Any:
    """Return EKS's association of the service account; None without one. Raises NameTaken."""
    eks, cluster = site.aws.client("eks"), site.environment.cluster
    whose = {"clusterName": cluster, "namespace": AIRFLOW, "serviceAccount": account}
    doing, key = f"look at the association of {account}", "associations"
    listed = list_all(doing, eks, "list_pod_identity_associations", key, **whose)
    if not listed:
        return None
    which = {"clusterName": cluster, "associationId": listed[0]["associationId"]}
    said = call_or_none(doing, eks.describe_pod_identity_association, **which)
    if said and not is_ours(site.environment, said["association"].get("tags", {})):
        taken = association_name(site.environment, account)
        raise foreign_error(ASSOCIATION, taken, site.environment)
    return said and said["association"]


def create_or_update_association(site: Site, account: str, role: str, found: Any) -> str:
    """Set the role of the association that was found, else create one; return its id.

    Raises NotYet while EKS does not know the role yet, though IAM has it.
    """
    eks = site.aws.client("eks")
    call, which = eks.create_pod_identity_association, association_arguments(site, account)
    if found:
        call = eks.update_pod_identity_association
        which = {"associationId": found["associationId"]}
    cluster = site.environment.cluster
    try:
        said = call_aws(f"give {account} {role}", call, clusterName=cluster, roleArn=role, **which)
    except LabError as error:
        if "InvalidParameterException" in error.what and "role" in error.what.lower():
            raise NotYet(error.what) from error
        raise
    return str(said["association"]["associationId"])


def association_arguments(site: Site, account: str) -> dict[str, Any]:
    """Return the arguments that a new association takes."""
    return {"namespace": AIRFLOW, "serviceAccount": account, "tags": site.environment.tags}


# --- Removing -----------------------------------------------------------------------------------


def remove_unwanted(site: Site) -> None:
    """Remove what an earlier `apply` made in this cluster for an option that is off now.

    What the ledger names of another cluster is left to `remove`: pods there may be running.
    """
    wanted = expected_resources(site.environment)
    here = site.environment.cluster
    remove_resources(
        site,
        {thing for thing in known_resources(site) - wanted if cluster_from_name(thing[1]) == here},
    )


def remove(site: Site) -> None:
    """Delete the associations, then the roles, then the policies."""
    remove_resources(site, known_resources(site))


def expected_resources(environment: Environment) -> set[tuple[str, str]]:
    """Return the kind and the name of each thing that `make` creates."""
    found: set[tuple[str, str]] = set()
    for role in roles(environment):
        found.add((ROLE, role.name))
        found |= {(POLICY, policy_name(environment, policy)) for policy in role.policies}
        found |= {(ASSOCIATION, association_name(environment, name)) for name in role.accounts}
    return found


def known_resources(site: Site) -> set[tuple[str, str]]:
    """Return what may exist: what the ledger names, and what any option creates."""
    every = replace(site.environment, options=(*site.environment.options, LOGS))
    named = {(entry.kind, entry.name) for entry in site.ledger.entries()}
    return expected_resources(every) | {(kind, name) for kind, name in named if kind in REMOVALS}


def remove_resources(site: Site, unwanted: set[tuple[str, str]]) -> None:
    """Delete these, each in the cluster that it was made for."""
    for kind, delete in REMOVALS.items():
        for name in sorted(name for other, name in unwanted if other == kind):
            delete(site_for_cluster(site, cluster_from_name(name)), name)


def cluster_from_name(name: str) -> str:
    """Return the cluster for which a thing of this name was made. What follows it has no `-`."""
    return name.partition("/")[0] if "/" in name else name.rpartition("-")[0]


def site_for_cluster(site: Site, cluster: str) -> Site:
    """Return the site with this cluster instead: the cluster's tag, too, says whose a thing is."""
    return replace(site, environment=replace(site.environment, cluster=cluster))


def remove_association(site: Site, name: str) -> None:
    """Delete the association: the service account's pods get no role when they start."""
    account = name.rpartition("/")[2]
    if found := find_if_ours(find_association, site, account):
        call_or_none(
            f"take the role from {account}",
            site.aws.client("eks").delete_pod_identity_association,
            clusterName=site.environment.cluster,
            associationId=found["associationId"],
        )
    site.ledger.forget(ASSOCIATION, name)


def remove_role(site: Site, name: str) -> None:
    if find_if_ours(find_role, site, name):
        detach_policies(site, name, list_attached_policies(site, name))
        call_or_none(f"delete role {name}", site.aws.client("iam").delete_role, RoleName=name)
    site.ledger.forget(ROLE, name)


def remove_policy(site: Site, name: str) -> None:
    if find_if_ours(find_policy, site, name):
        arn = policy_arn(site, name)
        for version in list_old_versions(site, arn):
            delete_version(site, arn, version)
        call_or_none(f"delete policy {name}", site.aws.client("iam").delete_policy, PolicyArn=arn)
    site.ledger.forget(POLICY, name)


# In the order of deletion: an association uses its role, and a role its policies.
REMOVALS: dict[str, Callable[[Site, str], None]] = {
    ASSOCIATION: remove_association,
    ROLE: remove_role,
    POLICY: remove_policy,
}
