"""The database's disk, which the cluster creates for a claim: cleanup without the cluster.

Deleting a namespace deletes its volumes, too, as long as there is a cluster to do it.
"""

from __future__ import annotations

from eks.aws import build_filters, call_or_none, list_all
from eks.environment import Environment
from eks.site import Row, Site, tag_filters

OPTION = "rds"  # with it there is no database in the cluster
FREE = "available"  # a volume that is attached to no machine


def plan(environment: Environment) -> list[Row]:
    """List what the cluster creates."""
    if OPTION in environment.options:
        return [
            Row("RDS instance", "PostgreSQL", "yours: it is used, and not made", "its hours, GB")
        ]
    return [Row("EBS volume", "postgresql", "gp3, encrypted, in one zone", "20 GB-months")]


def remove(site: Site) -> None:
    """Delete the disks with the environment's tags, except those still attached to a machine."""
    delete = site.aws.client("ec2").delete_volume
    for volume in list_free_volumes(site):
        call_or_none(f"delete volume {volume}", delete, VolumeId=volume)


def list_free_volumes(site: Site) -> list[str]:
    """List the environment's disks that are attached to no machine."""
    wanted = {**tag_filters(site.environment), "status": FREE}
    found = list_all(
        "look for disks",
        site.aws.client("ec2"),
        "describe_volumes",
        "Volumes",
        Filters=build_filters(wanted),
    )
    return sorted(str(volume["VolumeId"]) for volume in found)
