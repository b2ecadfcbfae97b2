"""Volumes that a cluster has left in AWS."""

from __future__ import annotations

from dataclasses import replace

from eks import disks, environment
from eks.environment import CLUSTER_TAG, TAG
from eks.site import Site
from tests.support.cloud import REGION, Cloud


def create_volume(cloud: Cloud, tags: dict[str, str]) -> str:
    found = cloud.client("ec2").create_volume(
        AvailabilityZone=f"{REGION}a",
        Size=20,
        TagSpecifications=[
            {
                "ResourceType": "volume",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )
    return str(found["VolumeId"])


def list_volumes(cloud: Cloud) -> set[str]:
    return {volume["VolumeId"] for volume in cloud.client("ec2").describe_volumes()["Volumes"]}


def test_only_the_environments_own_disks_go(cloud: Cloud, site: Site) -> None:
    ours = site.environment.tags
    mine = create_volume(cloud, ours)
    theirs = ({**ours, TAG: "production"}, {**ours, CLUSTER_TAG: "another"}, {TAG: "staging"})
    others = {create_volume(cloud, tags) for tags in (*theirs, {"Name": "staging"})}
    assert disks.list_free_volumes(site) == [mine]
    disks.remove(site)
    assert list_volumes(cloud) == others
    disks.remove(site)


def test_a_disk_that_a_machine_has_stays(cloud: Cloud, site: Site) -> None:
    mine = create_volume(cloud, site.environment.tags)
    ec2 = cloud.client("ec2")
    image = ec2.register_image(Name="debian")["ImageId"]
    machine = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]
    ec2.attach_volume(Device="/dev/sdf", InstanceId=machine["InstanceId"], VolumeId=mine)
    disks.remove(site)
    assert mine in list_volumes(cloud)


def test_with_rds_no_disk_is_planned() -> None:
    staging = environment.load("staging")
    kinds = [row.kind for row in disks.plan(staging)]
    with_rds = [row.kind for row in disks.plan(replace(staging, options=("rds",)))]
    assert (kinds, with_rds) == (["EBS volume"], ["RDS instance"])
