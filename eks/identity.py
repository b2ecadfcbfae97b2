"""Who a pod is to AWS: a role per kind of pod, given by Pod Identity to its service account.

No key is anywhere. What each role may do is in `eks/policies/`, and is what the code in the pods
does: `images/worker` and `images/trainer` for the steps, `dags/` and the plugins for Airflow.
Each policy lets a pod list what it may read. S3 asks for that, too, before it says 404 and not 403
of an object that is not there; such a question names no prefix, hence `IfExists`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eks.aws import ask, find, foreign, pages, settled, unless_foreign
from eks.environment import Environment
from eks.site import Row, Site, is_ours, tagged, tags_of
from lab.cluster.workloads import AIRFLOW
from lab.errors import LabError
from lab.wait import NotYet

POLICY, ROLE, ASSOCIATION = "policy", "role", "association"  # the ledger's kinds
FOLDER = Path("eks", "policies")
VERSIONS = 5  # of a policy that IAM keeps
KNOWN_SECONDS = 120  # until EKS sees a role that was made just now
LOGS = "remote-logs"  # the option


@dataclass(frozen=True)
class Role:
    """A role, the policies that it has, and the service accounts whose pods have it."""

    name: str
    policies: tuple[str, ...]  # files of `eks/policies/`, without .json
    accounts: tuple[str, ...]


def roles(environment: Environment) -> list[Role]:
    """The roles of an environment's pods."""
    name, logs = environment.cluster, LOGS in environment.options
    writers = ("airflow", "airflow-scheduler", "airflow-triggerer", "airflow-worker")
    found = [
        Role(f"{name}-steps", ("steps",), ("airflow-step",)),
        Role(f"{name}-airflow", ("airflow", "logs") if logs else ("airflow",), writers),
    ]
    if logs:  # the API server shows them, and needs nothing else of AWS
        found.append(Role(f"{name}-pages", ("pages",), ("airflow-api-server",)))
    return found


def accounts(environment: Environment) -> list[str]:
    """The service accounts whose pods are given a role."""
    return [account for role in roles(environment) for account in role.accounts]


def plan(environment: Environment) -> list[Row]:
    """What `make` makes."""
    return [
        Row("IAM role", role.name, f"Pod Identity of {', '.join(role.accounts)}")
        for role in roles(environment)
    ]


# --- Making -------------------------------------------------------------------------------------


def make(site: Site) -> None:
    """Each service account's pods have their role, and no account has one that it should not have.

    A pod gets its role when it starts. Raises NameTaken.
    """
    for role in roles(site.environment):
        for policy in role.policies:
            make_policy(site, policy)
        make_role(site, role)
        for account in role.accounts:
            associate(site, role, account)
    drop_unwanted(site)


def policy_name(environment: Environment, policy: str) -> str:
    return f"{environment.cluster}-{policy}"


def policy_arn(site: Site, name: str) -> str:
    return f"arn:{site.aws.partition}:iam::{site.environment.account}:policy/{name}"


def role_arn(site: Site, name: str) -> str:
    return f"arn:{site.aws.partition}:iam::{site.environment.account}:role/{name}"


def document(site: Site, policy: str, **more: str) -> dict[str, Any]:
    """A file of `eks/policies/`, filled in."""
    file = FOLDER / f"{policy}.json"
    text = (site.tree / file).read_text("utf-8")
    filled = site.environment.fill(text, file, partition=site.aws.partition, **more)
    content: dict[str, Any] = json.loads(filled)
    return content


def make_policy(site: Site, policy: str) -> None:
    """IAM has the policy, and what it says is what the file says."""
    name = policy_name(site.environment, policy)
    wanted = document(site, policy)
    found = look_policy(site, name)
    with site.ledger.making(POLICY, name) as facts:
        facts["arn"] = policy_arn(site, name)
        if not found:
            create_policy(site, name, wanted)
        elif said(site, found) != wanted:
            replace_policy(site, facts["arn"], wanted)


def look_policy(site: Site, name: str) -> Any:
    """What IAM says about the policy; None without one. Raises NameTaken."""
    iam = site.aws.client("iam")
    found = find(f"look at policy {name}", iam.get_policy, PolicyArn=policy_arn(site, name))
    return found and refuse_foreign(site, POLICY, name, found["Policy"])


def refuse_foreign(site: Site, kind: str, name: str, found: Any) -> Any:
    """The same. Raises NameTaken when it does not bear this environment's tags."""
    if not is_ours(site.environment, tags_of(found.get("Tags", []))):
        raise foreign(kind, name, site.environment)
    return found


def create_policy(site: Site, name: str, wanted: dict[str, Any]) -> None:
    ask(
        f"make policy {name}",
        site.aws.client("iam").create_policy,
        PolicyName=name,
        PolicyDocument=json.dumps(wanted),
        Tags=tagged(site.environment),
    )


def said(site: Site, policy: Any) -> Any:
    """The policy's present text."""
    version = ask(
        f"read policy {policy['PolicyName']}",
        site.aws.client("iam").get_policy_version,
        PolicyArn=policy["Arn"],
        VersionId=policy["DefaultVersionId"],
    )
    return version["PolicyVersion"]["Document"]


def replace_policy(site: Site, arn: str, wanted: dict[str, Any]) -> None:
    """The policy says what is wanted. IAM keeps five versions: the oldest makes room."""
    old = old_versions(site, arn)
    for version in old[: max(0, len(old) + 2 - VERSIONS)]:
        delete_version(site, arn, version)
    ask(
        f"change policy {arn}",
        site.aws.client("iam").create_policy_version,
        PolicyArn=arn,
        PolicyDocument=json.dumps(wanted),
        SetAsDefault=True,
    )


def old_versions(site: Site, arn: str) -> list[str]:
    """The versions that do not count, the oldest first."""
    iam = site.aws.client("iam")
    doing = f"list the versions of {arn}"
    found = pages(doing, iam, "list_policy_versions", "Versions", PolicyArn=arn)
    found.sort(key=lambda version: int(version["VersionId"].removeprefix("v")))
    return [version["VersionId"] for version in found if not version["IsDefaultVersion"]]


def delete_version(site: Site, arn: str, version: str) -> None:
    delete = site.aws.client("iam").delete_policy_version
    find(f"delete version {version} of {arn}", delete, PolicyArn=arn, VersionId=version)


def make_role(site: Site, role: Role) -> None:
    """The role is there, trusts these service accounts of this cluster, and has its policies."""
    trust = document(site, "trust", namespace=AIRFLOW, accounts='", "'.join(role.accounts))
    found = look_role(site, role.name)
    with site.ledger.making(ROLE, role.name) as facts:
        facts["arn"] = role_arn(site, role.name)
        if not found:
            create_role(site, role.name, trust)
        elif found["AssumeRolePolicyDocument"] != trust:
            ask(
                f"change whom role {role.name} trusts",
                site.aws.client("iam").update_assume_role_policy,
                RoleName=role.name,
                PolicyDocument=json.dumps(trust),
            )
        attach(site, role)


def look_role(site: Site, name: str) -> Any:
    """What IAM says about the role; None without one. Raises NameTaken."""
    found = find(f"look at role {name}", site.aws.client("iam").get_role, RoleName=name)
    return found and refuse_foreign(site, ROLE, name, found["Role"])


def create_role(site: Site, name: str, trust: dict[str, Any]) -> None:
    ask(
        f"make role {name}",
        site.aws.client("iam").create_role,
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps(trust),
        Description=f"Pods of {site.environment.cluster}, by Pod Identity",
        Tags=tagged(site.environment),
    )


def attach(site: Site, role: Role) -> None:
    """The role has its policies and no other."""
    iam = site.aws.client("iam")
    wanted = {policy_arn(site, policy_name(site.environment, name)) for name in role.policies}
    had = attached(site, role.name)
    for arn in sorted(wanted - had):
        ask(f"give {role.name} {arn}", iam.attach_role_policy, RoleName=role.name, PolicyArn=arn)
    detach(site, role.name, had - wanted)


def attached(site: Site, role: str) -> set[str]:
    iam = site.aws.client("iam")
    doing, key = f"list the policies of {role}", "AttachedPolicies"
    found = pages(doing, iam, "list_attached_role_policies", key, RoleName=role)
    return {policy["PolicyArn"] for policy in found}


def detach(site: Site, role: str, policies: set[str]) -> None:
    call = site.aws.client("iam").detach_role_policy
    for arn in sorted(policies):
        find(f"take {arn} from {role}", call, RoleName=role, PolicyArn=arn)


# --- Associations -------------------------------------------------------------------------------


def association_name(environment: Environment, account: str) -> str:
    return f"{environment.cluster}/{AIRFLOW}/{account}"


def associate(site: Site, role: Role, account: str) -> None:
    """EKS gives the role to the service account's pods."""
    found = look_association(site, account)
    wanted = role_arn(site, role.name)
    with site.ledger.making(ASSOCIATION, association_name(site.environment, account)) as facts:
        if found and found["roleArn"] == wanted:
            facts["id"] = found["associationId"]
            return
        facts["id"] = settled(
            lambda: give(site, account, wanted, found),
            what=f"role {role.name}",
            timeout=KNOWN_SECONDS,
        )


def look_association(site: Site, account: str) -> Any:
    """What EKS says about the service account's association; None without one. Raises NameTaken."""
    eks, cluster = site.aws.client("eks"), site.environment.cluster
    whose = {"clusterName": cluster, "namespace": AIRFLOW, "serviceAccount": account}
    doing, key = f"look at the association of {account}", "associations"
    listed = pages(doing, eks, "list_pod_identity_associations", key, **whose)
    if not listed:
        return None
    which = {"clusterName": cluster, "associationId": listed[0]["associationId"]}
    said = find(doing, eks.describe_pod_identity_association, **which)
    if said and not is_ours(site.environment, said["association"].get("tags", {})):
        taken = association_name(site.environment, account)
        raise foreign(ASSOCIATION, taken, site.environment)
    return said and said["association"]


def give(site: Site, account: str, role: str, found: Any) -> str:
    """The id of the association, which has this role: the one that was found, else a new one.

    Raises NotYet while EKS does not know the role, which IAM has.
    """
    eks = site.aws.client("eks")
    call, which = eks.create_pod_identity_association, new_association(site, account)
    if found:
        call = eks.update_pod_identity_association
        which = {"associationId": found["associationId"]}
    cluster = site.environment.cluster
    try:
        said = ask(f"give {account} {role}", call, clusterName=cluster, roleArn=role, **which)
    except LabError as error:
        if "InvalidParameterException" in error.what and "role" in error.what.lower():
            raise NotYet(error.what) from error
        raise
    return str(said["association"]["associationId"])


def new_association(site: Site, account: str) -> dict[str, Any]:
    """What EKS is told of an association that is not there."""
    return {"namespace": AIRFLOW, "serviceAccount": account, "tags": site.environment.tags}


# --- Removing -----------------------------------------------------------------------------------


def drop_unwanted(site: Site) -> None:
    """What an earlier `apply` made in this cluster for an option that is off now is gone.

    What the ledger names of another cluster is left to `remove`: pods there may be at work.
    """
    wanted = things(site.environment)
    here = site.environment.cluster
    drop(site, {thing for thing in known(site) - wanted if cluster_of(thing[1]) == here})


def remove(site: Site) -> None:
    """No pod is given a role any more; then there are no roles, and no policies."""
    drop(site, known(site))


def things(environment: Environment) -> set[tuple[str, str]]:
    """The kind and the name of each thing that `make` makes."""
    found: set[tuple[str, str]] = set()
    for role in roles(environment):
        found.add((ROLE, role.name))
        found |= {(POLICY, policy_name(environment, policy)) for policy in role.policies}
        found |= {(ASSOCIATION, association_name(environment, name)) for name in role.accounts}
    return found


def known(site: Site) -> set[tuple[str, str]]:
    """What there may be: what the ledger names, and what is made with any option."""
    every = replace(site.environment, options=(*site.environment.options, LOGS))
    named = {(entry.kind, entry.name) for entry in site.ledger.entries()}
    return things(every) | {(kind, name) for kind, name in named if kind in REMOVALS}


def drop(site: Site, unwanted: set[tuple[str, str]]) -> None:
    """These are gone, each in the cluster that it was made for."""
    for kind, gone in REMOVALS.items():
        for name in sorted(name for other, name in unwanted if other == kind):
            gone(of_cluster(site, cluster_of(name)), name)


def cluster_of(name: str) -> str:
    """The cluster for which the thing of this name was made. What follows it has no `-`."""
    return name.partition("/")[0] if "/" in name else name.rpartition("-")[0]


def of_cluster(site: Site, cluster: str) -> Site:
    """The site as it was with this cluster: whose a thing is, the cluster's tag says, too."""
    return replace(site, environment=replace(site.environment, cluster=cluster))


def dissociate(site: Site, name: str) -> None:
    """The service account's pods are given no role when they start."""
    account = name.rpartition("/")[2]
    if found := unless_foreign(look_association, site, account):
        find(
            f"take the role from {account}",
            site.aws.client("eks").delete_pod_identity_association,
            clusterName=site.environment.cluster,
            associationId=found["associationId"],
        )
    site.ledger.forget(ASSOCIATION, name)


def remove_role(site: Site, name: str) -> None:
    if unless_foreign(look_role, site, name):
        detach(site, name, attached(site, name))
        find(f"delete role {name}", site.aws.client("iam").delete_role, RoleName=name)
    site.ledger.forget(ROLE, name)


def remove_policy(site: Site, name: str) -> None:
    if unless_foreign(look_policy, site, name):
        arn = policy_arn(site, name)
        for version in old_versions(site, arn):
            delete_version(site, arn, version)
        find(f"delete policy {name}", site.aws.client("iam").delete_policy, PolicyArn=arn)
    site.ledger.forget(POLICY, name)


# In the order in which they can go: a role has policies, and none while a pod is given it.
REMOVALS: dict[str, Callable[[Site, str], None]] = {
    ASSOCIATION: dissociate,
    ROLE: remove_role,
    POLICY: remove_policy,
}
