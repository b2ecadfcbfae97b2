"""The shared file system, on moto's EFS and EC2: who reaches it, and that there is only one."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest

from eks import filesystem
from eks.aws import wait_until_settled
from eks.environment import CLUSTER_TAG, TAG
from eks.ledger import Ledger
from eks.site import Site, tag_list
from lab.errors import CloudBusy, NameTaken, NotRunningError
from tests.support.cloud import Cloud, kill_at_each_call

TOKEN, GROUP = "mlops-lab-staging/staging", "mlops-lab-staging-efs"


@pytest.fixture
def nodes(cloud: Cloud, site: Site) -> dict[str, Any]:
    """Return the network of a cluster that exists."""
    return make_cluster(cloud, site)


def make_cluster(cloud: Cloud, site: Site) -> dict[str, Any]:
    """Create the cluster and return its network."""
    cloud.make_cluster(site)
    found = cloud.client("eks").describe_cluster(name=site.environment.cluster)["cluster"]
    network: dict[str, Any] = found["resourcesVpcConfig"]
    return network


def list_file_systems(cloud: Cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.client("efs").describe_file_systems()["FileSystems"]
    return found


def list_mount_targets(cloud: Cloud, system: str) -> list[dict[str, Any]]:
    said = cloud.client("efs").describe_mount_targets(FileSystemId=system)
    found: list[dict[str, Any]] = said["MountTargets"]
    return found


def list_security_groups(cloud: Cloud) -> list[dict[str, Any]]:
    wanted = [{"Name": "group-name", "Values": [GROUP]}]
    said = cloud.client("ec2").describe_security_groups(Filters=wanted)
    found: list[dict[str, Any]] = said["SecurityGroups"]
    return found


def describe_all(cloud: Cloud) -> Any:
    """Return all that there is, without the ids that AWS generates."""
    (system,) = list_file_systems(cloud)
    shown = ("Encrypted", "ThroughputMode", "PerformanceMode", "Tags", "CreationToken")
    zones = sorted(
        t["AvailabilityZoneName"] for t in list_mount_targets(cloud, system["FileSystemId"])
    )
    (group,) = list_security_groups(cloud)
    rules = [(r["FromPort"], len(r["UserIdGroupPairs"])) for r in group["IpPermissions"]]
    return {key: system[key] for key in shown}, zones, rules, group["Tags"]


def test_what_is_made(cloud: Cloud, site: Site, nodes: dict[str, Any]) -> None:
    filesystem.make(site)
    (system,) = list_file_systems(cloud)
    assert (system["Encrypted"], system["ThroughputMode"]) == (True, "elastic")
    assert [tag for tag in system["Tags"] if tag["Key"] != "Name"] == tag_list(site.environment)
    efs = cloud.client("efs")
    with pytest.raises(efs.exceptions.PolicyNotFound):  # backups would outlive it
        efs.describe_backup_policy(FileSystemId=system["FileSystemId"])
    assert filesystem.find_id(site) == system["FileSystemId"]


def test_the_clusters_nodes_reach_it_and_nobody_else(
    cloud: Cloud, site: Site, nodes: dict[str, Any]
) -> None:
    filesystem.make(site)
    (group,) = list_security_groups(cloud)
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 2049, 2049)
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [
        nodes["clusterSecurityGroupId"]
    ]
    assert not rule["IpRanges"] + rule["Ipv6Ranges"]
    (system,) = list_file_systems(cloud)
    for target in list_mount_targets(cloud, system["FileSystemId"]):
        asked = cloud.client("efs").describe_mount_target_security_groups(
            MountTargetId=target["MountTargetId"]
        )
        assert asked["SecurityGroups"] == [group["GroupId"]]


def test_each_zone_has_one_mount_target_in_a_private_subnet(
    cloud: Cloud, site: Site, nodes: dict[str, Any]
) -> None:
    filesystem.make(site)
    (system,) = list_file_systems(cloud)
    chosen = {target["SubnetId"] for target in list_mount_targets(cloud, system["FileSystemId"])}
    said = cloud.client("ec2").describe_subnets(SubnetIds=nodes["subnetIds"])["Subnets"]
    known = {subnet["SubnetId"]: subnet for subnet in said}
    assert len({subnet["AvailabilityZone"] for subnet in said}) == len(chosen) == 2
    assert len(said) == 4
    assert not any(known[subnet]["MapPublicIpOnLaunch"] for subnet in chosen)


def test_twice_is_once_even_without_the_ledger(
    cloud: Cloud, site: Site, nodes: dict[str, Any]
) -> None:
    filesystem.make(site)
    before = describe_all(cloud), filesystem.find_id(site)
    filesystem.make(site)
    site.ledger.path.unlink()
    filesystem.make(site)
    assert (describe_all(cloud), filesystem.find_id(site)) == before


def test_the_id_is_known_without_the_ledger(
    cloud: Cloud, site: Site, nodes: dict[str, Any]
) -> None:
    with pytest.raises(NotRunningError):
        filesystem.find_id(site)
    filesystem.make(site)
    known = filesystem.find_id(site)
    site.ledger.path.unlink()
    assert filesystem.find_id(site) == known


def test_without_a_cluster(cloud: Cloud, site: Site) -> None:
    with pytest.raises(NotRunningError, match=site.environment.cluster):
        filesystem.make(site)
    assert site.ledger.entries() == []


def test_a_file_system_that_never_gets_ready(
    cloud: Cloud, site: Site, nodes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "READY_SECONDS", 0.1)
    monkeypatch.setattr(filesystem, "AVAILABLE", "another state")
    fast = functools.partial(wait_until_settled, interval=0.01)
    monkeypatch.setattr(filesystem, "wait_until_settled", fast)
    with pytest.raises(CloudBusy, match=r"was not ready .* available"):
        filesystem.make(site)
    assert site.ledger.find("filesystem", TOKEN)


OTHERS = [
    {},
    {TAG: "staging"},
    {TAG: "staging", CLUSTER_TAG: "another"},
    {TAG: "production", CLUSTER_TAG: "mlops-lab-staging"},
]


def to_tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def test_two_labs_of_one_name_have_a_file_system_each(
    cloud: Cloud, site: Site, nodes: dict[str, Any]
) -> None:
    """Two checkouts, each with a `staging`, in one account, but with different clusters."""
    other = cloud.site(cluster="another")
    other = replace(other, ledger=Ledger(other.folder / "another.json"))
    make_cluster(cloud, other)
    for one in (site, other):
        filesystem.make(one)
    assert filesystem.find_id(site) != filesystem.find_id(other)
    other.ledger.path.unlink()
    filesystem.remove(other)
    assert [system["FileSystemId"] for system in list_file_systems(cloud)] == [
        filesystem.find_id(site)
    ]


@pytest.mark.parametrize("tags", OTHERS)
def test_somebody_elses_file_system(
    cloud: Cloud, site: Site, nodes: dict[str, Any], tags: dict[str, str]
) -> None:
    cloud.client("efs").create_file_system(CreationToken=TOKEN, Tags=to_tag_list(tags))
    with pytest.raises(NameTaken, match=TOKEN):
        filesystem.make(site)
    filesystem.remove(site)
    assert len(list_file_systems(cloud)) == 1
    assert list_security_groups(cloud) == []
    assert site.ledger.entries() == []


@pytest.mark.parametrize("tags", OTHERS)
def test_somebody_elses_security_group(
    cloud: Cloud, site: Site, nodes: dict[str, Any], tags: dict[str, str]
) -> None:
    ec2 = cloud.client("ec2")
    made = ec2.create_security_group(GroupName=GROUP, Description="theirs", VpcId=nodes["vpcId"])
    if tags:
        ec2.create_tags(Resources=[made["GroupId"]], Tags=to_tag_list(tags))
    with pytest.raises(NameTaken, match=GROUP):
        filesystem.make(site)
    assert list_file_systems(cloud) == []
    filesystem.remove(site)
    assert len(list_security_groups(cloud)) == 1


def test_it_is_removed_and_again(cloud: Cloud, site: Site, nodes: dict[str, Any]) -> None:
    filesystem.make(site)
    site.ledger.path.unlink()
    filesystem.remove(site)
    assert (list_file_systems(cloud), list_security_groups(cloud), site.ledger.entries()) == (
        [],
        [],
        [],
    )
    filesystem.remove(site)


@pytest.mark.sweep
def test_killed_at_any_call_it_is_completed_and_removed(cloud: Cloud, site: Site) -> None:
    make_cluster(cloud, site)
    filesystem.make(site)
    whole = describe_all(cloud)
    deaths = 0
    for number, event in kill_at_each_call(
        cloud, filesystem.make, lambda: make_cluster(cloud, cloud.site())
    ):
        after = cloud.site()
        kinds = {entry.kind for entry in after.ledger.entries()}
        assert not list_file_systems(cloud) or "filesystem" in kinds, (
            f"unrecorded after {event} {number}"
        )
        assert not list_security_groups(cloud) or "security group" in kinds, (
            f"unrecorded after {event} {number}"
        )
        filesystem.make(after)
        assert describe_all(cloud) == whole
        filesystem.remove(after)
        assert (list_file_systems(cloud), list_security_groups(cloud), after.ledger.entries()) == (
            [],
            [],
            [],
        )
        deaths += 1
    assert deaths == 2 * (5 if cloud.every else 4)


@pytest.mark.sweep
def test_killed_at_any_call_a_removal_is_ended(cloud: Cloud) -> None:
    def make_cluster_and_filesystem() -> None:
        make_cluster(cloud, cloud.site())
        filesystem.make(cloud.site())

    deaths = 0
    for _ in kill_at_each_call(cloud, filesystem.remove, make_cluster_and_filesystem):
        filesystem.remove(cloud.site())
        assert (
            list_file_systems(cloud),
            list_security_groups(cloud),
            cloud.site().ledger.entries(),
        ) == ([], [], [])
        deaths += 1
    assert deaths == 2 * (4 if cloud.every else 3)
