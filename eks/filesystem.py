"""The file system that the steps of a run share: EFS, reached from the cluster's nodes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eks.aws import ask, described, find, foreign, pages, settled, unless_foreign
from eks.environment import Environment
from eks.site import Row, Site, is_ours, tagged, tags_of
from lab.errors import LabError, NotRunningError
from lab.wait import NotYet

KIND, GROUP_KIND = "filesystem", "security group"
NFS = 2049
AVAILABLE = "available"
READY_SECONDS = 600
GONE_SECONDS = 600
TOKEN_LENGTH = 64  # that EFS takes


def plan(environment: Environment) -> list[Row]:
    """What `make` makes."""
    return [
        Row(
            "EFS file system",
            token(environment),
            "encrypted, no backups, one mount target per zone",
            "GB-months stored, GB read and written",
        ),
        Row("Security group", group_name(environment), "NFS from the cluster's nodes alone"),
    ]


def token(environment: Environment) -> str:
    """What EFS makes one file system for, however often it is asked."""
    return f"{environment.cluster}/{environment.name}"[:TOKEN_LENGTH]


def group_name(environment: Environment) -> str:
    return f"{environment.cluster}-efs"


def id_of(site: Site) -> str:
    """The file system's id. Raises NotRunningError before there is one."""
    entry = site.ledger.find(KIND, token(site.environment))
    if entry and "id" in entry.facts:
        return entry.facts["id"]
    if system := look(site):
        return str(system["FileSystemId"])
    raise NotRunningError("there is no shared file system yet", "nox -s eks -- apply")


# --- Making -------------------------------------------------------------------------------------


def make(site: Site) -> None:
    """The file system can be mounted by the cluster's nodes. Raises NameTaken, NotRunningError."""
    network = network_of(site)
    group = make_group(site, network)
    system = look(site)
    with site.ledger.making(KIND, token(site.environment)) as facts:
        facts["id"] = str((system or create(site))["FileSystemId"])
        wait(site, facts["id"])
        for subnet in missing(site, facts["id"], network):
            mount(site, facts["id"], subnet, group)
        settled(
            lambda: refuse_unmounted(site, facts["id"]),
            what="the file system's mount targets",
            timeout=READY_SECONDS,
        )


def network_of(site: Site) -> Mapping[str, Any]:
    """The cluster's network. Raises NotRunningError without a cluster."""
    found = described(site.aws, site.environment.cluster)
    if not found:
        raise NotRunningError(
            f"there is no cluster {site.environment.cluster} whose nodes would mount it",
            "nox -s eks -- apply",
        )
    network: Mapping[str, Any] = found["resourcesVpcConfig"]
    return network


def look(site: Site) -> Any:
    """What EFS says about our file system; None without one. Raises NameTaken."""
    environment = site.environment
    efs = site.aws.client("efs")
    told = {"CreationToken": token(environment)}
    found = pages("look for the file system", efs, "describe_file_systems", "FileSystems", **told)
    if not found:
        return None
    if not is_ours(environment, tags_of(found[0]["Tags"])):
        raise foreign("file system", token(environment), environment)
    return found[0]


def create(site: Site) -> Any:
    """The new file system. It holds what runs share and logs, and nothing that outlives them."""
    return ask(
        "make the file system",
        site.aws.client("efs").create_file_system,
        CreationToken=token(site.environment),
        PerformanceMode="generalPurpose",
        ThroughputMode="elastic",
        Encrypted=True,
        Backup=False,  # backups would outlive it for 35 days, and cost
        Tags=[*tagged(site.environment), {"Key": "Name", "Value": token(site.environment)}],
    )


def wait(site: Site, system: str) -> None:
    """The file system takes mount targets."""

    def check() -> None:
        said = ask(
            "look at the file system",
            site.aws.client("efs").describe_file_systems,
            FileSystemId=system,
        )
        if (state := said["FileSystems"][0]["LifeCycleState"]) != AVAILABLE:
            raise NotYet(state)

    settled(check, what=f"file system {system}", timeout=READY_SECONDS)


def targets(site: Site, system: str) -> list[dict[str, Any]]:
    """The file system's mount targets; none of one that is gone."""
    efs = site.aws.client("efs")
    doing = f"list the mount targets of {system}"
    return pages(doing, efs, "describe_mount_targets", "MountTargets", FileSystemId=system)


def refuse_unmounted(site: Site, system: str) -> None:
    """Raises NotYet while a zone's nodes can't mount it."""
    for target in targets(site, system):
        if target["LifeCycleState"] != AVAILABLE:
            raise NotYet(f"{target['MountTargetId']} is {target['LifeCycleState']}")


def missing(site: Site, system: str, network: Mapping[str, Any]) -> list[str]:
    """A subnet of each of the cluster's zones that has no mount target yet; a private one first."""
    ec2 = site.aws.client("ec2")
    given = {"SubnetIds": network["subnetIds"]}
    found = pages("list the cluster's subnets", ec2, "describe_subnets", "Subnets", **given)
    found.sort(key=lambda subnet: (subnet["MapPublicIpOnLaunch"], subnet["SubnetId"]))
    had = {target["AvailabilityZoneName"] for target in targets(site, system)}
    chosen: dict[str, str] = {}
    for subnet in found:
        chosen.setdefault(subnet["AvailabilityZone"], subnet["SubnetId"])
    return [subnet for zone, subnet in sorted(chosen.items()) if zone not in had]


def mount(site: Site, system: str, subnet: str, group: str) -> None:
    ask(
        f"make a mount target in {subnet}",
        site.aws.client("efs").create_mount_target,
        FileSystemId=system,
        SubnetId=subnet,
        SecurityGroups=[group],
    )


# --- The security group -------------------------------------------------------------------------


def make_group(site: Site, network: Mapping[str, Any]) -> str:
    """The id of the group that lets the cluster's nodes, and nobody else, reach NFS."""
    name = group_name(site.environment)
    there = next(iter(groups(site, network["vpcId"])), None)
    if there and not is_our_group(site, there):
        raise foreign(GROUP_KIND, name, site.environment)
    with site.ledger.making(GROUP_KIND, name) as facts:
        facts["id"] = there["GroupId"] if there else create_group(site, network["vpcId"])
        admit(site, facts["id"], there, network["clusterSecurityGroupId"])
    return facts["id"]


def groups(site: Site, network: str | None = None) -> list[dict[str, Any]]:
    """The groups of our name: at most one in a network."""
    wanted = [{"Name": "group-name", "Values": [group_name(site.environment)]}]
    if network:
        wanted.append({"Name": "vpc-id", "Values": [network]})
    ec2 = site.aws.client("ec2")
    doing = "look for the file system's security group"
    return pages(doing, ec2, "describe_security_groups", "SecurityGroups", Filters=wanted)


def is_our_group(site: Site, group: Mapping[str, Any]) -> bool:
    return is_ours(site.environment, tags_of(group.get("Tags", [])))


def create_group(site: Site, network: str) -> str:
    name = group_name(site.environment)
    made = ask(
        f"make security group {name}",
        site.aws.client("ec2").create_security_group,
        GroupName=name,
        Description=f"NFS for the nodes of {site.environment.cluster}",
        VpcId=network,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tagged(site.environment)}],
    )
    return str(made["GroupId"])


def admit(site: Site, group: str, known: Mapping[str, Any] | None, nodes: str) -> None:
    """The group lets `nodes` in, and only once."""
    for rule in known["IpPermissions"] if known else []:
        if nodes in {pair["GroupId"] for pair in rule["UserIdGroupPairs"]}:
            return
    pairs = [{"GroupId": nodes, "Description": "the cluster's nodes"}]
    rule = {"IpProtocol": "tcp", "FromPort": NFS, "ToPort": NFS, "UserIdGroupPairs": pairs}
    ask(
        "let the cluster's nodes reach the file system",
        site.aws.client("ec2").authorize_security_group_ingress,
        GroupId=group,
        IpPermissions=[rule],
    )


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site) -> None:
    """There is neither the file system, with all that was in it, nor its security group."""
    if system := unless_foreign(look, site):
        unmount(site, system["FileSystemId"])
        find(
            "delete the file system",
            site.aws.client("efs").delete_file_system,
            FileSystemId=system["FileSystemId"],
        )
        settled(lambda: refuse_system(site), what="the file system's end", timeout=GONE_SECONDS)
    site.ledger.forget(KIND, token(site.environment))
    for group in groups(site):
        if is_our_group(site, group):
            delete_group(site, group["GroupId"])
    site.ledger.forget(GROUP_KIND, group_name(site.environment))


def unmount(site: Site, system: str) -> None:
    """The file system has no mount target any more."""
    for target in targets(site, system):
        find(
            f"delete mount target {target['MountTargetId']}",
            site.aws.client("efs").delete_mount_target,
            MountTargetId=target["MountTargetId"],
        )

    def check() -> None:
        if left := targets(site, system):
            raise NotYet(f"{len(left)} are left")

    settled(check, what="the mount targets' end", timeout=GONE_SECONDS)


def refuse_system(site: Site) -> None:
    if system := unless_foreign(look, site):
        raise NotYet(f"it is {system['LifeCycleState']}")


def delete_group(site: Site, group: str) -> None:
    """The group is gone; it can't go before the last network interface that uses it."""

    def attempt() -> None:
        try:
            find(
                f"delete security group {group}",
                site.aws.client("ec2").delete_security_group,
                GroupId=group,
            )
        except LabError as error:
            if "DependencyViolation" not in error.what:
                raise
            raise NotYet(error.what) from error

    settled(attempt, what=f"the end of security group {group}", timeout=GONE_SECONDS)
