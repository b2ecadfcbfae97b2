"""The way from the cluster's network to S3: a gateway endpoint, which costs nothing.

Without it, all data that steps pull and push goes through the NAT gateway, which costs by the GB.
"""

from __future__ import annotations

from typing import Any

from eks.aws import call_aws, call_or_none, describe_cluster, list_all
from eks.environment import Environment
from eks.site import Row, Site, is_ours, tag_list, tags_from_list

KIND = "S3 endpoint"  # the ledger's
GONE = ("deleted", "deleting", "failed", "rejected")


def plan(environment: Environment) -> list[Row]:
    """Return the endpoint as a row of the plan, where an apply makes the network."""
    if not is_wanted(environment):
        return []
    return [Row("VPC endpoint", environment.cluster, "gateway to S3, past the NAT gateway")]


def is_wanted(environment: Environment) -> bool:
    """Return whether the network is made by an apply: somebody else's is left as it is."""
    return environment.make_cluster and not environment.choices.vpc


def make(site: Site) -> None:
    """Make the endpoint unless the network has one, on all of its route tables."""
    if not is_wanted(site.environment):
        return
    network = find_network(site)
    with site.ledger.making(KIND, site.environment.cluster) as facts:
        found = find(site, network) or create(site, network)
        facts["id"] = found["VpcEndpointId"]
        add_routes(site, found, list_route_tables(site, network))


def find_network(site: Site) -> str:
    """Return the ID of the cluster's network."""
    found = describe_cluster(site.aws, site.environment.cluster)
    return str(found["resourcesVpcConfig"]["vpcId"])


def service_name(site: Site) -> str:
    return f"com.amazonaws.{site.aws.region}.s3"


def find(site: Site, network: str) -> Any:
    """Return the network's gateway to S3, whoever made it; None without one."""
    asked = {"vpc-id": network, "service-name": service_name(site), "vpc-endpoint-type": "Gateway"}
    found = list_all(
        f"list the endpoints of {network}",
        site.aws.client("ec2"),
        "describe_vpc_endpoints",
        "VpcEndpoints",
        Filters=[{"Name": name, "Values": [value]} for name, value in asked.items()],
    )
    return next((one for one in found if one["State"].lower() not in GONE), None)


def create(site: Site, network: str) -> Any:
    tags = {"ResourceType": "vpc-endpoint", "Tags": tag_list(site.environment)}
    return call_aws(
        f"make the gateway to S3 in {network}",
        site.aws.client("ec2").create_vpc_endpoint,
        VpcId=network,
        ServiceName=service_name(site),
        VpcEndpointType="Gateway",
        RouteTableIds=list_route_tables(site, network),
        TagSpecifications=[tags],
    )["VpcEndpoint"]


def list_route_tables(site: Site, network: str) -> list[str]:
    """List the network's route tables: each zone's private subnet has one of its own."""
    found = list_all(
        f"list the route tables of {network}",
        site.aws.client("ec2"),
        "describe_route_tables",
        "RouteTables",
        Filters=[{"Name": "vpc-id", "Values": [network]}],
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
    for one in list_ours(site):
        call_or_none(
            f"delete endpoint {one}",
            site.aws.client("ec2").delete_vpc_endpoints,
            VpcEndpointIds=[one],
        )
    site.ledger.forget(KIND, site.environment.cluster)


def list_ours(site: Site) -> list[str]:
    """List the endpoints with this environment's tags, whichever network they are in."""
    found = list_all(
        "list the endpoints",
        site.aws.client("ec2"),
        "describe_vpc_endpoints",
        "VpcEndpoints",
        Filters=[
            {"Name": f"tag:{key}", "Values": [value]}
            for key, value in site.environment.tags.items()
        ],
    )
    return [one["VpcEndpointId"] for one in found if one["State"].lower() not in GONE]
