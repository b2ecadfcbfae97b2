"""The cluster: made by eksctl of `eks/cluster.yaml`, or one that is there already.

eksctl keeps what it makes in CloudFormation stacks, which go on when eksctl is killed. So `make`
looks what there is, waits until nothing is on its way any more, and has eksctl add what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.version import Version

from eks import aws
from eks.agent import ensure_agent, remove_agent
from eks.aws import (
    call_aws,
    describe_cluster,
    error_from_text,
    foreign_error,
    list_all,
    list_cluster_parts,
    wait_until_settled,
)
from eks.control_plane_logs import delete_logs, set_log_retention
from eks.eksctl import read_cluster_config, refuse_running_eksctl, run_eksctl
from eks.environment import FOLDER, Environment
from eks.site import Row, Site, is_ours
from eks.stacks import (
    delete_stacks,
    delete_stacks_of,
    list_stacks,
    network_stack_name,
    stack_tags,
    wait_for_stacks,
)
from lab.config import KIT
from lab.errors import PromotionError
from lab.wait import NotYet

KIND = "cluster"  # the ledger's
DRIVER = "aws-efs-csi-driver"
DISK_DRIVER = "aws-ebs-csi-driver"
RDS = "rds"  # the option with which there is no database in the cluster, nor a disk for it
IN_USE = ("ACTIVE", "UPDATING")
UNDERWAY = ("CREATING", "UPDATING", "PENDING", "DELETING")


# --- What is wanted --------------------------------------------------------------------------


def plan(environment: Environment) -> list[Row]:
    """Return what `make` makes, as rows of the plan."""
    if not environment.make_cluster:
        return [Row("EKS cluster", environment.cluster, "it is there already, and stays")]
    config = read_cluster_config(environment, KIT)
    control = Row(
        "EKS cluster",
        environment.cluster,
        f"Kubernetes {environment.kubernetes}, private nodes",
        "1 control plane's hours; GB of its logs",
    )
    groups = (node_group_row(group) for group in config["managedNodeGroups"])
    return [control, network_row(environment), *groups]


def network_row(environment: Environment) -> Row:
    chosen = environment.choices
    if network := chosen.vpc:
        what = f"it is there already; nodes in {', '.join(network['private'])}"
        return Row("VPC", network["id"], what, "GB between zones")
    hours = "hours in each zone" if chosen.nat_per_zone else "hours"
    cost = f"1 NAT gateway's {hours}, GB through it; GB between zones"
    return Row("VPC", environment.cluster, "public and private subnets in each zone", cost)


def node_group_row(group: Mapping[str, Any]) -> Row:
    low, first, high = group["minSize"], group["desiredCapacity"], group["maxSize"]
    kind = "spot" if group.get("spot") else "on demand"
    return Row(
        "Node group",
        group["name"],
        f"{kind}: {', '.join(group['instanceTypes'])}",
        f"{first} machines' hours at first ({low} to {high}), each with {group['volumeSize']} GB",
    )


# --- Making ----------------------------------------------------------------------------------


def make(site: Site) -> None:
    """Create the cluster with its node groups and add-ons. Raises LabError's children."""
    if site.environment.make_cluster:
        create_or_complete(site)
    else:
        check_existing(site)


def exists(site: Site) -> bool:
    """Return whether the cluster exists and answers."""
    found = describe_cluster(site.aws, site.environment.cluster)
    return bool(found) and found["status"] in IN_USE


def create_or_complete(site: Site) -> None:
    """Create the cluster with eksctl, or add what it lacks of the file.

    What a killed `make` has begun is waited for first.
    """
    refuse_running_eksctl(site)
    name = site.environment.cluster
    refuse_foreign(site)
    with site.ledger.making(KIND, name) as facts:
        wait_for_stacks(site)
        found = wait_for_cluster(site)
        if found is None:
            delete_stacks(site)  # of a first attempt that failed, or of a cluster deleted by hand
            run_eksctl(site, "create", "cluster", "--write-kubeconfig=false")
        set_log_retention(site)
        if found:
            upgrade_control_plane(site, found)
            add_missing_parts(site)
        refuse_broken_groups(site)
        facts["arn"] = str((wait_for_cluster(site) or {}).get("arn", ""))


def refuse_foreign(site: Site) -> None:
    """Raise NameTaken when the cluster or its stack belongs to another environment."""
    environment = site.environment
    found = describe_cluster(site.aws, environment.cluster)
    if found and not is_ours(environment, found["tags"]):
        raise foreign_error(KIND, environment.cluster, environment)
    client = site.aws.client("cloudformation")
    for stack in list_all("list the stacks", client, "describe_stacks", "Stacks"):
        other = not is_ours(environment, stack_tags(stack))
        if stack["StackName"] == network_stack_name(site) and other:
            raise foreign_error("stack", stack["StackName"], environment)


def wait_for_cluster(site: Site) -> Any:
    """Return the cluster once it is active, or None if there is none. Raises PromotionError."""
    name = site.environment.cluster

    def look() -> Any:
        found = describe_cluster(site.aws, name)
        if found and found["status"] in UNDERWAY:
            raise NotYet(f"it is {found['status']}")
        return found

    found = wait_until_settled(
        look, what=f"cluster {name}", timeout=aws.CLUSTER_SECONDS, interval=aws.CLUSTER_INTERVAL
    )
    if found and found["status"] != "ACTIVE":
        issues = [issue["message"] for issue in found.get("health", {}).get("issues", [])]
        again = "nox -s eks -- destroy removes it; then apply again"
        raise error_from_text(f"cluster {name} is {found['status']}", "\n".join(issues), fix=again)
    return found


def upgrade_control_plane(site: Site, found: Mapping[str, Any]) -> None:
    """Upgrade the control plane to the environment's version.

    Raises PromotionError when it has a newer one, or is more than one version behind.
    """
    had, chosen = Version(found["version"]), Version(site.environment.kubernetes)
    if had > chosen:
        raise version_error(site, found)
    if had.minor + 1 < chosen.minor:
        raise version_gap_error(site, had, chosen)
    if had < chosen:
        run_eksctl(site, "upgrade", "cluster", "--approve")


def version_gap_error(site: Site, had: Version, chosen: Version) -> PromotionError:
    return PromotionError(
        f"cluster {site.environment.cluster} has Kubernetes {had}, and can't go to {chosen} at"
        " once: EKS upgrades by one version at a time",
        f"one after the other: set kubernetes to {had.major}.{had.minor + 1} in"
        f" {FOLDER / site.environment.name}.toml, apply, upgrade the nodes, and go on from there",
    )


def version_error(site: Site, found: Mapping[str, Any]) -> PromotionError:
    environment = site.environment
    return PromotionError(
        f"cluster {environment.cluster} has Kubernetes {found['version']},"
        f" and environment {environment.name} asks for {environment.kubernetes}",
        f"correct kubernetes in {FOLDER / environment.name}.toml, or upgrade the cluster",
    )


def add_missing_parts(site: Site) -> None:
    """Create the add-ons and node groups of the file that are missing; eksctl skips the others.

    Add-ons come first: no node gets ready without vpc-cni. eksctl does not wait for their pods.
    """
    chosen = read_cluster_config(site.environment, site.kit)
    for what, kind in (("addon", "addons"), ("nodegroup", "managedNodeGroups")):
        if lacking := names_of(chosen[kind]) - list_cluster_parts(
            site.aws, site.environment.cluster, f"{what}s"
        ):
            delete_stacks_of(site, what, lacking)
            run_eksctl(site, "create", what)
            refuse_missing_parts(site, what, names_of(chosen[kind]))


def refuse_missing_parts(site: Site, what: str, names: set[str]) -> None:
    """Raise PromotionError when eksctl reports success and a part is still missing."""
    if lacking := names - list_cluster_parts(site.aws, site.environment.cluster, f"{what}s"):
        raise PromotionError(
            f"eksctl made no {what} {', '.join(sorted(lacking))}",
            "read its log",
            site.folder / "eksctl.log",
        )


def names_of(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["name"] for entry in entries}


def refuse_broken_groups(site: Site) -> None:
    """Raise PromotionError when machines of a node group could not be had."""
    name = site.environment.cluster
    look = site.aws.client("eks").describe_nodegroup
    for group in sorted(list_cluster_parts(site.aws, site.environment.cluster, "nodegroups")):
        said = call_aws(f"look at {group}", look, clusterName=name, nodegroupName=group)[
            "nodegroup"
        ]
        if said["status"].endswith("FAILED"):
            issues = [issue["message"] for issue in said.get("health", {}).get("issues", [])]
            raise error_from_text(
                f"node group {group} is {said['status']}",
                "\n".join(issues),
                fix=f"eksctl delete nodegroup --region {site.aws.region} --cluster {name}"
                f" --name {group}; then apply again",
            )


# --- One that is there already ---------------------------------------------------------------


def check_existing(site: Site) -> None:
    """Check that an existing cluster will do, and add the agent. Raises PromotionError."""
    environment = site.environment
    found = wait_for_cluster(site)
    if not found:
        raise PromotionError(
            f"there is no cluster {environment.cluster} in {environment.region}",
            f"correct cluster, or set make_cluster, in {FOLDER / environment.name}.toml",
        )
    if found["version"] != environment.kubernetes:
        raise version_error(site, found)
    ensure_agent(site)  # what the drivers' identities need, too
    refuse_without(site, DRIVER, "the steps share a volume")
    if RDS not in environment.options:
        refuse_without(site, DISK_DRIVER, "the database has a disk")


def refuse_without(site: Site, driver: str, why: str) -> None:
    """Raise PromotionError when the cluster lacks the driver's add-on."""
    environment = site.environment
    if driver not in list_cluster_parts(site.aws, site.environment.cluster, "addons"):
        raise PromotionError(
            f"cluster {environment.cluster} has no add-on {driver}, and {why}",
            f"add it, with its Pod Identity association: eksctl create addon --name {driver}"
            f" --cluster {environment.cluster} --region {environment.region}"
            " --auto-apply-pod-identity-associations",
        )


# --- Removing --------------------------------------------------------------------------------


def remove(site: Site) -> None:
    """Delete the cluster if an `apply` made it; of another one, what an `apply` added to it."""
    refuse_running_eksctl(site)
    name = site.environment.cluster
    if not site.environment.make_cluster:
        remove_agent(site)
        return
    if site.ledger.find(KIND, name) or is_tagged(site) or list_stacks(site):
        wait_for_stacks(site)
        if is_tagged(site):
            run_eksctl(site, "delete", "cluster", "--wait", "--disable-nodegroup-eviction")
        delete_stacks(site)
        delete_logs(site)
    site.ledger.forget(KIND, name)
    (site.folder / "kubeconfig").unlink(missing_ok=True)


def is_tagged(site: Site) -> bool:
    """Return whether the cluster exists and was made for this environment."""
    found = describe_cluster(site.aws, site.environment.cluster)
    return bool(found) and is_ours(site.environment, found["tags"])
