"""The machines of the node groups: whether the region has them, and the account may start them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from eks.aws import Aws, build_filters, call_aws, describe_cluster, list_all
from eks.cluster_choices import LEAST_ZONES, PLATFORM
from eks.eksctl import read_cluster_config
from eks.site import Site
from lab.cluster import docker
from lab.errors import MissingPermission, QuotaReached, RegionLacks

# Zones that eksctl never takes, by region: `zoneIDsToAvoid` in its pkg/az/az.go.
AVOIDED = {"us-east-1": {"use1-az3"}, "us-west-1": {"usw1-az2"}, "ca-central-1": {"cac1-az3"}}
# The quotas of vCPUs of standard machines, in Service Quotas: on demand, and spot.
QUOTAS = {False: "L-1216C47A", True: "L-34B43A08"}
# "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances" is the first one's name.
STANDARD = re.compile(r"[acdhimrtz]\d")
OTHER_TYPES = "choose others: [sizes.GROUP] instanceTypes in the environment's file"


@dataclass(frozen=True)
class MachineType:
    """A type of machine, as EC2 describes it."""

    cpus: int  # virtual ones, which quotas count
    architectures: Collection[str]


def check_machines(site: Site) -> list[str]:
    """Check that the region has the machines and the account may start them, before any is made.

    Return a line about each for the user. Raises RegionLacks, QuotaReached.
    """
    if not site.environment.make_cluster:
        return [f"region  {site.aws.region}"]
    groups = read_cluster_config(site.environment, site.kit)["managedNodeGroups"]
    types = list_instance_types(groups)
    check_instance_types(site.aws, types)
    known = describe_types(site.aws, types)
    refuse_other_architecture(known)
    lines = [f"region  {site.aws.region}, which has {', '.join(types)}"]
    if describe_cluster(site.aws, site.environment.cluster):
        return lines  # its zones are chosen, and its machines are among those that run
    if not site.environment.choices.vpc:
        lines.append(f"zones   {', '.join(check_zones(site.aws, types))}")
    return [*lines, *check_quotas(site.aws, groups, known)]


def list_instance_types(groups: Collection[Mapping[str, Any]]) -> list[str]:
    """Return the instance types of the groups, each once."""
    return list(dict.fromkeys(kind for group in groups for kind in group["instanceTypes"]))


def check_instance_types(aws: Aws, instance_types: Collection[str]) -> None:
    """Raise RegionLacks unless the region offers each of these instance types."""
    wanted = set(instance_types)
    found = {offer["InstanceType"] for offer in list_offers(aws, "region", wanted)}
    if lacking := sorted(wanted - found):
        raise RegionLacks(f"{aws.region} has no machines of type {', '.join(lacking)}", OTHER_TYPES)


def list_offers(aws: Aws, place: str, instance_types: Collection[str]) -> list[Any]:
    """List which of the types each `place` has: the region, or each availability zone."""
    operation, key = "describe_instance_type_offerings", "InstanceTypeOfferings"
    return list_by_type(aws, operation, key, instance_types, LocationType=place)


def describe_types(aws: Aws, instance_types: Collection[str]) -> dict[str, MachineType]:
    """Return what EC2 says of these types, by name."""
    found = list_by_type(aws, "describe_instance_types", "InstanceTypes", instance_types)
    return {
        one["InstanceType"]: MachineType(
            one["VCpuInfo"]["DefaultVCpus"], one["ProcessorInfo"]["SupportedArchitectures"]
        )
        for one in found
    }


def list_by_type(
    aws: Aws, operation: str, key: str, instance_types: Collection[str], **more: str
) -> list[Any]:
    """List what an operation says of these types; nothing where none is named."""
    if not instance_types:
        return []
    wanted = [{"Name": "instance-type", "Values": sorted(instance_types)}]
    doing = f"ask which machines {aws.region} has"
    return list_all(doing, aws.client("ec2"), operation, key, Filters=wanted, **more)


def refuse_other_architecture(known: Mapping[str, MachineType]) -> None:
    """Raise RegionLacks for a type that can't run the images."""
    for name, found in known.items():
        if PLATFORM not in map(docker.name_platform, found.architectures):
            listed = ", ".join(found.architectures)
            raise RegionLacks(f"{name} is {listed}, and the images are {PLATFORM}", OTHER_TYPES)


# --- Zones --------------------------------------------------------------------------------------


def check_zones(aws: Aws, instance_types: Collection[str]) -> list[str]:
    """Return the zones that eksctl may choose. Raises RegionLacks below two: it would fail then."""
    offers: dict[str, set[str]] = {}
    for offer in list_offers(aws, "availability-zone", instance_types):
        offers.setdefault(offer["Location"], set()).add(offer["InstanceType"])
    usable = list_usable_zones(aws.region, list_zones(aws), offers, instance_types)
    if len(usable) < LEAST_ZONES:
        lacking = {zone: sorted({*instance_types} - had) for zone, had in offers.items()}
        said = [f"{zone} lacks {', '.join(types)}" for zone, types in lacking.items() if types]
        raise RegionLacks(
            f"eksctl takes only zones that have all types of all node groups, and {aws.region} has"
            f" {len(usable)} of them: {'; '.join(sorted(said))}",
            OTHER_TYPES,
        )
    return usable


def list_zones(aws: Aws) -> dict[str, str]:
    """Return the IDs of the region's zones in use, by name, as eksctl asks for them."""
    asked = {"region-name": aws.region, "state": "available", "zone-type": "availability-zone"}
    said = call_aws(
        f"list the zones of {aws.region}",
        aws.client("ec2").describe_availability_zones,
        Filters=build_filters(asked),
    )
    return {zone["ZoneName"]: zone["ZoneId"] for zone in said["AvailabilityZones"]}


def list_usable_zones(
    region: str,
    zones: Mapping[str, str],
    offers: Mapping[str, Collection[str]],
    instance_types: Collection[str],
) -> list[str]:
    """Return the names of the zones that eksctl may choose, sorted.

    Each has all types of all groups: `getZones` and `FilterBasedOnAvailability` in eksctl's
    pkg/az/az.go (eksctl#5933). `zones` are IDs, and `offers` types, by the zones' names.
    """
    avoided = AVOIDED.get(region, set())
    return sorted(
        name
        for name, zone in zones.items()
        if zone not in avoided and {*instance_types} <= {*offers.get(name, ())}
    )


# --- Quotas -------------------------------------------------------------------------------------


def check_quotas(
    aws: Aws, groups: Collection[Mapping[str, Any]], known: Mapping[str, MachineType]
) -> list[str]:
    """Check that the account may start the machines that a new cluster begins with.

    Return a line for the user. Raises QuotaReached. Who may not read quotas learns that they were
    not looked at.
    """
    try:
        used = count_running_cpus(aws)
        found = [check_quota(aws, spot, groups, known, used[spot]) for spot in QUOTAS]
    except MissingPermission as error:
        return [f"quotas  not looked at: {error.what}"]
    return [f"quotas  {'; '.join(line for line in found if line)}"]


def check_quota(
    aws: Aws,
    spot: bool,
    groups: Collection[Mapping[str, Any]],
    known: Mapping[str, MachineType],
    used: int,
) -> str:
    """Return what a quota allows and what is asked for. Raises QuotaReached when that is more."""
    needed = count_first_cpus(groups, known, spot)
    if not needed:
        return ""
    kind, code = "spot" if spot else "on-demand", QUOTAS[spot]
    ask = aws.client("service-quotas").get_service_quota
    said = call_aws(f"read quota {code}", ask, ServiceCode="ec2", QuotaCode=code)
    most = int(said["Quota"]["Value"])
    if used + needed > most:
        raise QuotaReached(
            f"{aws.region} lets this account run {most} {kind} vCPUs of standard machines: {used}"
            f" run, and the cluster needs {needed} to begin with",
            f"ask for more of quota {code} (EC2) in the Service Quotas console, or choose fewer or"
            " smaller machines: [sizes.GROUP] in the environment's file",
        )
    return f"{needed} {kind} vCPUs needed, {most - used} of {most} free"


def count_first_cpus(
    groups: Collection[Mapping[str, Any]], known: Mapping[str, MachineType], spot: bool
) -> int:
    """Return the vCPUs of the groups' first machines, of the largest type that each may get."""
    return sum(
        group["desiredCapacity"] * max(known[kind].cpus for kind in group["instanceTypes"])
        for group in groups
        if bool(group.get("spot")) is spot and STANDARD.match(group["instanceTypes"][0])
    )


def count_running_cpus(aws: Aws) -> dict[bool, int]:
    """Return the vCPUs of the account's running standard machines: on demand (False), and spot."""
    running = [
        one
        for reservation in list_all(
            "count the machines that run",
            aws.client("ec2"),
            "describe_instances",
            "Reservations",
            Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}],
        )
        for one in reservation["Instances"]
        if STANDARD.match(one["InstanceType"])
    ]
    known = describe_types(aws, {one["InstanceType"] for one in running})
    found = dict.fromkeys(QUOTAS, 0)
    for one in running:
        found[one.get("InstanceLifecycle") == "spot"] += count_cpus(one, known)
    return found


def count_cpus(machine: Mapping[str, Any], known: Mapping[str, MachineType]) -> int:
    """Return a machine's vCPUs: those that it was started with, else its type's."""
    if options := machine.get("CpuOptions"):
        return int(options["CoreCount"] * options["ThreadsPerCore"])
    return known[machine["InstanceType"]].cpus
