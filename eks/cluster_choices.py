"""What an environment may choose of the cluster: its network, and the sizes of its node groups.

The names are those of eksctl's file. What is not chosen is as in `eks/cluster.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from itertools import chain
from typing import Any

GROUPS = ("airflow", "steps", "training")
# Groups that are made only with an option. eksctl takes no zone in which a type of any group lacks.
ONLY_WITH = {"training": "gpu"}
COUNTS = ("minSize", "desiredCapacity", "maxSize")
SIZES: dict[str, type] = {
    "instanceTypes": list,
    **dict.fromkeys(COUNTS, int),
    "volumeSize": int,
    "spot": bool,
}
TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
ZONE, SUBNET, VPC = (
    re.compile(form)
    for form in (r"[a-z]{2}(-[a-z]+)+-\d[a-z]", "subnet-[0-9a-f]+", "vpc-[0-9a-f]+")
)
PLATFORM = "linux/amd64"  # of the machines, and so of the images
LEAST_ZONES = 2  # of which EKS asks subnets
NAT = {False: "Single", True: "HighlyAvailable"}


@dataclass(frozen=True)
class Choices:
    """The choices of one environment, none of which its file has to name."""

    nat_per_zone: bool = False  # else one gateway, whose zone's failure cuts off the others
    public_access_cidrs: tuple[str, ...] = ()  # from where the cluster's API is reached; empty: all
    vpc: Mapping[str, Any] = field(default_factory=dict)  # one that exists; empty: eksctl makes it
    sizes: Mapping[str, Any] = field(default_factory=dict)  # by node group


def write_choices(
    config: dict[str, Any], chosen: Choices, options: Iterable[str]
) -> dict[str, Any]:
    """Return the content of `eks/cluster.yaml` with the choices in it."""
    network = {**config["vpc"], "nat": {"gateway": NAT[chosen.nat_per_zone]}}
    if chosen.public_access_cidrs:
        network["publicAccessCIDRs"] = list(chosen.public_access_cidrs)
    if chosen.vpc:
        del network["nat"]  # the network is there already, with its ways out
        network["id"], network["subnets"] = chosen.vpc["id"], list_subnets(chosen.vpc)
    groups = [
        {**group, **chosen.sizes.get(group["name"], {})}
        for group in config["managedNodeGroups"]
        if is_made(group["name"], options)
    ]
    return {**config, "vpc": network, "managedNodeGroups": groups}


def list_subnets(network: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """Return the subnets as eksctl's file names them: by kind and zone."""
    return {
        kind: {zone: {"id": subnet} for zone, subnet in network[kind].items()}
        for kind in ("private", "public")
        if network.get(kind)
    }


def is_made(group: str, options: Iterable[str]) -> bool:
    """Return whether a node group is one of this environment's."""
    return group not in ONLY_WITH or ONLY_WITH[group] in options


# --- What can't be right ------------------------------------------------------------------------


def find_fault(chosen: Choices, options: Iterable[str], *, make_cluster: bool) -> str:
    """Return what can't be right of the choices, as a sentence about it; else an empty text."""
    if chosen != Choices() and not make_cluster:
        names = ", ".join(one.name for one in fields(Choices))
        return f"{names} are for a cluster that apply makes"
    # One at a time: what comes after a value of another type could not be judged.
    faults = chain(
        find_cidr_faults(chosen.public_access_cidrs),
        find_network_faults(chosen.vpc),
        find_size_faults(chosen.sizes, options),
    )
    return next(faults, "")


def find_cidr_faults(ranges: Iterable[object]) -> Iterator[str]:
    for one in ranges:
        try:
            ip_network(str(one))
        except ValueError as error:
            yield f"public_access_cidrs: {error}"


def find_network_faults(network: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the network: `id`, and `private` and `public` subnets by zone."""
    if not network:
        return
    if odd := {*network} - {"id", "private", "public"}:
        yield f"[vpc] {min(odd)} is unknown"
    if not VPC.fullmatch(str(network.get("id"))):
        yield f"[vpc] id = {network.get('id')!r} is none"
    for kind in ("private", "public"):
        subnets = network.get(kind, {})
        if not isinstance(subnets, dict):
            yield f"[vpc] {kind} must be a table of subnets by zone"
        for zone, subnet in subnets.items():
            if not ZONE.fullmatch(zone) or not SUBNET.fullmatch(str(subnet)):
                yield f"[vpc.{kind}] {zone} = {subnet!r} is no subnet of a zone"
    if len(network.get("private", {})) < LEAST_ZONES:
        yield f"[vpc.private] needs subnets in {LEAST_ZONES} zones at least: nodes are in them"


def find_size_faults(chosen: Mapping[str, Any], options: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with the sizes of the node groups."""
    for group, sizes in chosen.items():
        if group not in GROUPS:
            yield f"[sizes.{group}] is no node group; there are {', '.join(GROUPS)}"
        elif not is_made(group, options):
            yield f"[sizes.{group}] needs the option {ONLY_WITH[group]}, with which it is made"
        elif not isinstance(sizes, dict):
            yield f"[sizes] {group} must be a table"
        else:
            yield from find_group_faults(f"[sizes.{group}]", sizes)


def find_group_faults(where: str, sizes: Mapping[str, Any]) -> Iterator[str]:
    for key, value in sizes.items():
        if key not in SIZES:
            yield f"{where} {key} is unknown; there are {', '.join(SIZES)}"
        elif type(value) is not SIZES[key]:
            yield f"{where} {key} must be a {SIZES[key].__name__}"
    types = sizes.get("instanceTypes")
    if types == [] or not all(TYPE.fullmatch(str(one)) for one in types or ()):
        yield f"{where} instanceTypes = {types!r} are none"
    counts = [sizes[key] for key in COUNTS if key in sizes]
    if counts and (len(counts) < len(COUNTS) or counts != sorted(counts) or min(counts) < 0):
        yield f"{where} needs all of {', '.join(COUNTS)}, the first the least"
