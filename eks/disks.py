"""The database's disk, which the cluster makes of a claim: what is left of it without the cluster.

A namespace that is deleted takes its volumes along, as long as there is a cluster to see to it.
"""

from __future__ import annotations

from eks.aws import find, pages
from eks.environment import Environment
from eks.site import Row, Site

OPTION = "rds"  # with it there is no database in the cluster
FREE = "available"  # a volume that no machine has


def plan(environment: Environment) -> list[Row]:
    """What the cluster makes."""
    if OPTION in environment.options:
        return [
            Row("RDS instance", "PostgreSQL", "yours: it is used, and not made", "its hours, GB")
        ]
    return [Row("EBS volume", "postgresql", "gp3, encrypted, in one zone", "20 GB-months")]


def remove(site: Site) -> None:
    """No disk that bears the environment's tags is left, but for those that a machine still has."""
    delete = site.aws.client("ec2").delete_volume
    for volume in left(site):
        find(f"delete volume {volume}", delete, VolumeId=volume)


def left(site: Site) -> list[str]:
    """The disks of the environment that no machine has."""
    ours = {f"tag:{key}": value for key, value in site.environment.tags.items()}
    wanted = {**ours, "status": FREE}
    found = pages(
        "look for disks",
        site.aws.client("ec2"),
        "describe_volumes",
        "Volumes",
        Filters=[{"Name": name, "Values": [value]} for name, value in wanted.items()],
    )
    return sorted(str(volume["VolumeId"]) for volume in found)
