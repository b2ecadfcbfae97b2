"""The file system that the steps of a run share: EFS, reached from the cluster's nodes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eks.aws import (
    build_filters,
    call_aws,
    call_or_none,
    find_if_ours,
    foreign_error,
    list_all,
    read_network,
    wait_until_settled,
)
from eks.environment import Environment
from eks.site import Row, Site, is_ours, tag_list, tags_from_list
from lab.errors import LabError, NotRunningError
from lab.wait import NotYet

KIND, GROUP_KIND = "filesystem", "security group"
NFS = 2049
AVAILABLE = "available"
READY_SECONDS = 600
GONE_SECONDS = 600
TOKEN_LENGTH = 64  # the longest that EFS accepts


def plan(environment: Environment) -> list[Row]:
    """List what `make` creates."""
    return [
        Row(
            "EFS file system",
            creation_token(environment),
            "encrypted, no backups, one mount target per zone",
            "GB-months stored, GB read and written",
        ),
        Row("Security group", group_name(environment), "NFS from the cluster's nodes alone"),
    ]


def creation_token(environment: Environment) -> str:
    """Return the creation token: EFS creates one file system per token."""
    return f"{environment.cluster}/{environment.name}"[:TOKEN_LENGTH]


def group_name(environment: Environment) -> str:
    return f"{environment.cluster}-efs"


def find_id(site: Site) -> str:
    """Return the file system's id. Raises NotRunningError before there is one."""
    entry = site.ledger.find(KIND, creation_token(site.environment))
    if entry and "id" in entry.facts:
        return entry.facts["id"]
    if system := find_file_system(site):
        return str(system["FileSystemId"])
    raise NotRunningError("there is no shared file system yet", "nox -s eks -- apply")


# --- Making -------------------------------------------------------------------------------------


def make(site: Site) -> None:
    """Create the file system and its mount targets in the cluster's zones, unless they exist.

    Raises NameTaken, and NotRunningError without a cluster.
    """
    network = read_network(site.aws, site.environment.cluster)
    group = make_group(site, network)
    system = find_file_system(site)
    with site.ledger.making(KIND, creation_token(site.environment)) as facts:
        facts["id"] = str((system or create_file_system(site))["FileSystemId"])
        wait_until_available(site, facts["id"])
        for subnet in list_unmounted_subnets(site, facts["id"], network):
            create_mount_target(site, facts["id"], subnet, group)
        wait_until_settled(
            lambda: check_mount_targets(site, facts["id"]),
            what="the file system's mount targets",
            timeout=READY_SECONDS,
        )


def find_file_system(site: Site) -> Any:
    """Return EFS's description of our file system; None without one. Raises NameTaken."""
    environment = site.environment
    efs = site.aws.client("efs")
    which = {"CreationToken": creation_token(environment)}
    found = list_all(
        "look for the file system", efs, "describe_file_systems", "FileSystems", **which
    )
    if not found:
        return None
    if not is_ours(environment, tags_from_list(found[0]["Tags"])):
        raise foreign_error("file system", creation_token(environment), environment)
    return found[0]


def create_file_system(site: Site) -> Any:
    """Create the file system. It holds what runs share and logs, and nothing that outlives them."""
    return call_aws(
        "make the file system",
        site.aws.client("efs").create_file_system,
        CreationToken=creation_token(site.environment),
        PerformanceMode="generalPurpose",
        ThroughputMode="elastic",
        Encrypted=True,
        Backup=False,  # backups would outlive it for 35 days, and cost
        Tags=[
            *tag_list(site.environment),
            {"Key": "Name", "Value": creation_token(site.environment)},
        ],
    )


def wait_until_available(site: Site, system: str) -> None:
    """Wait until the file system accepts mount targets."""

    def check() -> None:
        said = call_aws(
            "look at the file system",
            site.aws.client("efs").describe_file_systems,
            FileSystemId=system,
        )
        if (state := said["FileSystems"][0]["LifeCycleState"]) != AVAILABLE:
            raise NotYet(state)

    wait_until_settled(check, what=f"file system {system}", timeout=READY_SECONDS)


def list_mount_targets(site: Site, system: str) -> list[dict[str, Any]]:
    """List the file system's mount targets; none when it is gone."""
    efs = site.aws.client("efs")
    doing = f"list the mount targets of {system}"
    return list_all(doing, efs, "describe_mount_targets", "MountTargets", FileSystemId=system)


def check_mount_targets(site: Site, system: str) -> None:
    """Raise NotYet while a zone's nodes can't mount it."""
    for target in list_mount_targets(site, system):
        if target["LifeCycleState"] != AVAILABLE:
            raise NotYet(f"{target['MountTargetId']} is {target['LifeCycleState']}")


def list_unmounted_subnets(site: Site, system: str, network: Mapping[str, Any]) -> list[str]:
    """Return a subnet, private if possible, per zone of the cluster without a mount target."""
    ec2 = site.aws.client("ec2")
    given = {"SubnetIds": network["subnetIds"]}
    found = list_all("list the cluster's subnets", ec2, "describe_subnets", "Subnets", **given)
    found.sort(key=lambda subnet: (subnet["MapPublicIpOnLaunch"], subnet["SubnetId"]))
    had = {target["AvailabilityZoneName"] for target in list_mount_targets(site, system)}
    chosen: dict[str, str] = {}
    for subnet in found:
        chosen.setdefault(subnet["AvailabilityZone"], subnet["SubnetId"])
    return [subnet for zone, subnet in sorted(chosen.items()) if zone not in had]


def create_mount_target(site: Site, system: str, subnet: str, group: str) -> None:
    call_aws(
        f"make a mount target in {subnet}",
        site.aws.client("efs").create_mount_target,
        FileSystemId=system,
        SubnetId=subnet,
        SecurityGroups=[group],
    )


# --- The security group -------------------------------------------------------------------------


def make_group(site: Site, network: Mapping[str, Any]) -> str:
    """Create the group that lets only the cluster's nodes reach NFS; return its id."""
    name = group_name(site.environment)
    group = next(iter(list_groups(site, network["vpcId"])), None)
    if group and not is_our_group(site, group):
        raise foreign_error(GROUP_KIND, name, site.environment)
    with site.ledger.making(GROUP_KIND, name) as facts:
        facts["id"] = group["GroupId"] if group else create_group(site, network["vpcId"])
        allow_nodes(site, facts["id"], group, network["clusterSecurityGroupId"])
    return facts["id"]


def list_groups(site: Site, network: str | None = None) -> list[dict[str, Any]]:
    """List the security groups of our name: at most one per network."""
    wanted = {"group-name": group_name(site.environment)}
    if network:
        wanted["vpc-id"] = network
    ec2, filters = site.aws.client("ec2"), build_filters(wanted)
    doing = "look for the file system's security group"
    return list_all(doing, ec2, "describe_security_groups", "SecurityGroups", Filters=filters)


def is_our_group(site: Site, group: Mapping[str, Any]) -> bool:
    return is_ours(site.environment, tags_from_list(group.get("Tags", [])))


def create_group(site: Site, network: str) -> str:
    name = group_name(site.environment)
    made = call_aws(
        f"make security group {name}",
        site.aws.client("ec2").create_security_group,
        GroupName=name,
        Description=f"NFS for the nodes of {site.environment.cluster}",
        VpcId=network,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tag_list(site.environment)}],
    )
    return str(made["GroupId"])


def allow_nodes(site: Site, group: str, known: Mapping[str, Any] | None, nodes: str) -> None:
    """Add the rule that lets `nodes` in, unless the group has it."""
    for rule in known["IpPermissions"] if known else []:
        if nodes in {pair["GroupId"] for pair in rule["UserIdGroupPairs"]}:
            return
    pairs = [{"GroupId": nodes, "Description": "the cluster's nodes"}]
    rule = {"IpProtocol": "tcp", "FromPort": NFS, "ToPort": NFS, "UserIdGroupPairs": pairs}
    call_aws(
        "let the cluster's nodes reach the file system",
        site.aws.client("ec2").authorize_security_group_ingress,
        GroupId=group,
        IpPermissions=[rule],
    )


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site) -> None:
    """Delete the file system, with all that is in it, and its security group."""
    if system := find_if_ours(find_file_system, site):
        delete_mount_targets(site, system["FileSystemId"])
        call_or_none(
            "delete the file system",
            site.aws.client("efs").delete_file_system,
            FileSystemId=system["FileSystemId"],
        )
        wait_until_settled(
            lambda: check_deleted(site), what="the file system's end", timeout=GONE_SECONDS
        )
    site.ledger.forget(KIND, creation_token(site.environment))
    for group in list_groups(site):
        if is_our_group(site, group):
            delete_group(site, group["GroupId"])
    site.ledger.forget(GROUP_KIND, group_name(site.environment))


def delete_mount_targets(site: Site, system: str) -> None:
    """Delete the file system's mount targets, and wait until they are gone."""
    for target in list_mount_targets(site, system):
        call_or_none(
            f"delete mount target {target['MountTargetId']}",
            site.aws.client("efs").delete_mount_target,
            MountTargetId=target["MountTargetId"],
        )

    def check() -> None:
        if left := list_mount_targets(site, system):
            raise NotYet(f"{len(left)} are left")

    wait_until_settled(check, what="the mount targets' end", timeout=GONE_SECONDS)


def check_deleted(site: Site) -> None:
    """Raise NotYet while the file system exists."""
    if system := find_if_ours(find_file_system, site):
        raise NotYet(f"it is {system['LifeCycleState']}")


def delete_group(site: Site, group: str) -> None:
    """Delete the group, retrying while a network interface still uses it."""

    def attempt() -> None:
        try:
            call_or_none(
                f"delete security group {group}",
                site.aws.client("ec2").delete_security_group,
                GroupId=group,
            )
        except LabError as error:
            if "DependencyViolation" not in error.what:
                raise
            raise NotYet(error.what) from error

    wait_until_settled(attempt, what=f"the end of security group {group}", timeout=GONE_SECONDS)
