"""Who a pod is to AWS: a role per kind of pod, given by Pod Identity to its service account.

No key is anywhere. What each role may do is in `eks/policies/`, and is what the code in the pods
does: `images/worker` and `images/trainer` for the steps, `dags/` and the plugins for Airflow.
Each policy lets a pod list what it may read. S3 asks for that, too, before it says 404 and not 403
of an object that is not there; such a question names no prefix, hence `IfExists`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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
    airflow: tuple[str, ...] = (
        "airflow",
        "airflow-scheduler",
        "airflow-triggerer",
        "airflow-worker",
    )
    policies: tuple[str, ...] = ("airflow",)
    if LOGS in environment.options:  # the API server shows them
        airflow, policies = (*airflow, "airflow-api-server"), (*policies, "logs")
    return [
        Role(f"{environment.cluster}-steps", ("steps",), ("airflow-step",)),
        Role(f"{environment.cluster}-airflow", policies, airflow),
    ]


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


def association_name(site: Site, account: str) -> str:
    return f"{site.environment.cluster}/{AIRFLOW}/{account}"


def associate(site: Site, role: Role, account: str) -> None:
    """EKS gives the role to the service account's pods."""
    found = look_association(site, account)
    wanted = role_arn(site, role.name)
    with site.ledger.making(ASSOCIATION, association_name(site, account)) as facts:
        if not found:
            settled(
                lambda: facts.update(id=create_association(site, account, wanted)),
                what=f"role {role.name}",
                timeout=KNOWN_SECONDS,
            )
            return
        facts["id"] = found["associationId"]
        if found["roleArn"] != wanted:
            ask(
                f"give {account} role {role.name}",
                site.aws.client("eks").update_pod_identity_association,
                clusterName=site.environment.cluster,
                associationId=found["associationId"],
                roleArn=wanted,
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
        raise foreign(ASSOCIATION, association_name(site, account), site.environment)
    return said and said["association"]


def create_association(site: Site, account: str, role: str) -> str:
    """The association's id. Raises NotYet while EKS does not know the role, which IAM has."""
    try:
        made = ask(
            f"give {account} {role}",
            site.aws.client("eks").create_pod_identity_association,
            clusterName=site.environment.cluster,
            namespace=AIRFLOW,
            serviceAccount=account,
            roleArn=role,
            tags=site.environment.tags,
        )
    except LabError as error:
        if "InvalidParameterException" in error.what and "role" in error.what.lower():
            raise NotYet(error.what) from error
        raise
    return str(made["association"]["associationId"])


# --- Removing -----------------------------------------------------------------------------------


def drop_unwanted(site: Site) -> None:
    """What an earlier `apply` made for an option that is off now is gone."""
    wanted = {association_name(site, account) for account in accounts(site.environment)}
    for entry in site.ledger.entries(ASSOCIATION):
        if entry.name not in wanted:
            dissociate(site, entry.name.rpartition("/")[2])
    kept = {name for _, name in policy_names(site.environment)}
    for entry in site.ledger.entries(POLICY):
        if entry.name not in kept:
            remove_policy(site, entry.name)


def policy_names(environment: Environment) -> Iterator[tuple[str, str]]:
    """Which role has which policy, by their names."""
    for role in roles(environment):
        for policy in role.policies:
            yield role.name, policy_name(environment, policy)


def remove(site: Site) -> None:
    """No pod is given a role any more; then there are no roles, and no policies."""
    environment = site.environment
    known = {entry.name.rpartition("/")[2] for entry in site.ledger.entries(ASSOCIATION)}
    for account in sorted(known | set(accounts(environment))):
        dissociate(site, account)
    made = {entry.name for entry in site.ledger.entries(ROLE)}
    for role in sorted(made | {role.name for role in roles(environment)}):
        remove_role(site, role)
    made = {entry.name for entry in site.ledger.entries(POLICY)}
    for policy in sorted(made | {name for _, name in policy_names(environment)}):
        remove_policy(site, policy)


def dissociate(site: Site, account: str) -> None:
    """The service account's pods are given no role when they start."""
    if found := unless_foreign(look_association, site, account):
        find(
            f"take the role from {account}",
            site.aws.client("eks").delete_pod_identity_association,
            clusterName=site.environment.cluster,
            associationId=found["associationId"],
        )
    site.ledger.forget(ASSOCIATION, association_name(site, account))


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
