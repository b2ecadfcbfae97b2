"""The way from the cluster's network to S3: a gateway endpoint, which costs nothing.

Without it, all data that steps pull and push goes through the NAT gateway, which costs by the GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eks.aws import build_filters, call_aws, call_or_none, list_all, read_network
from eks.environment import Environment
from eks.site import Row, Site, is_ours, tag_filters, tag_list, tags_from_list

KIND = "S3 endpoint"  # the ledger's
GONE = ("deleted", "deleting", "failed", "rejected")


def plan(environment: Environment) -> list[Row]:
    """Return the endpoint as a row of the plan, where an apply makes the network."""
    if not environment.makes_network:
        return []
    return [Row("VPC endpoint", environment.cluster, "gateway to S3, past the NAT gateway")]


def make(site: Site) -> None:
    """Make the endpoint unless the network has one, on all of its route tables."""
    if not site.environment.makes_network:
        return
    network = str(read_network(site.aws, site.environment.cluster)["vpcId"])
    tables = list_route_tables(site, network)
    with site.ledger.making(KIND, site.environment.cluster) as facts:
        found = find(site, network) or create(site, network, tables)
        facts["id"] = found["VpcEndpointId"]
        add_routes(site, found, tables)


def service_name(site: Site) -> str:
    return f"com.amazonaws.{site.aws.region}.s3"


def find(site: Site, network: str) -> Any:
    """Return the network's gateway to S3, whoever made it; None without one."""
    asked = {"vpc-id": network, "service-name": service_name(site), "vpc-endpoint-type": "Gateway"}
    return next(iter(list_endpoints(site, asked)), None)


def list_endpoints(site: Site, asked: Mapping[str, str]) -> list[Any]:
    """List the endpoints for which all of these filters hold, and that are not gone."""
    ec2, operation = site.aws.client("ec2"), "describe_vpc_endpoints"
    filters = build_filters(asked)
    found = list_all("list the endpoints", ec2, operation, "VpcEndpoints", Filters=filters)
    return [one for one in found if one["State"].lower() not in GONE]


def create(site: Site, network: str, tables: list[str]) -> Any:
    tags = {"ResourceType": "vpc-endpoint", "Tags": tag_list(site.environment)}
    return call_aws(
        f"make the gateway to S3 in {network}",
        site.aws.client("ec2").create_vpc_endpoint,
        VpcId=network,
        ServiceName=service_name(site),
        VpcEndpointType="Gateway",
        RouteTableIds=tables,
        TagSpecifications=[tags],
    )["VpcEndpoint"]


def list_route_tables(site: Site, network: str) -> list[str]:
    """List the network's route tables: each zone's private subnet has one of its own."""
    found = list_all(
        f"list the route tables of {network}",
        site.aws.client("ec2"),
        "describe_route_tables",
        "RouteTables",
        Filters=build_filters({"vpc-id": network}),
    )
    return sorted(table["RouteTableId"] for table in found)


def add_routes(site: Site, found: Any, tables: list[str]) -> None:
    """Add the endpoint's route to the tables that lack it, if it is this environment's."""
    lacking = sorted({*tables} - {*found["RouteTableIds"]})
    if lacking and is_ours(site.environment, tags_from_list(found.get("Tags", []))):
        call_aws(
            "add the route to S3's gateway",
            site.aws.client("ec2").modify_vpc_endpoint,
            VpcEndpointId=found["VpcEndpointId"],
            AddRouteTableIds=lacking,
        )


def remove(site: Site) -> None:
    """Delete this environment's endpoint: a network that has one can't be deleted."""
    for one in list_endpoints(site, tag_filters(site.environment)):
        name = one["VpcEndpointId"]
        delete = site.aws.client("ec2").delete_vpc_endpoints
        call_or_none(f"delete endpoint {name}", delete, VpcEndpointIds=[name])
    site.ledger.forget(KIND, site.environment.cluster)
