"""The network's gateway to S3, in EC2 as moto has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eks import apply, aws, cluster, destroy, s3_endpoint
from eks.cluster_choices import Choices
from eks.environment import CLUSTER_TAG, TAG
from eks.site import Site
from tests.support.cloud import REGION, Cloud, kill_at_each_call

if TYPE_CHECKING:
    import pytest

OURS = {TAG: "staging", CLUSTER_TAG: "mlops-lab-staging"}
EXISTING = Choices(vpc={"id": "vpc-1", "private": {"a": "subnet-1", "b": "subnet-2"}})


def list_endpoints(cloud: Cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    return [one for one in found if one["State"] != "deleted"]


def find_network(cloud: Cloud, site: Site) -> str:
    said = cloud.client("eks").describe_cluster(name=site.environment.cluster)
    return str(said["cluster"]["resourcesVpcConfig"]["vpcId"])


def list_tables(cloud: Cloud, network: str) -> set[str]:
    asked = [{"Name": "vpc-id", "Values": [network]}]
    found = cloud.client("ec2").describe_route_tables(Filters=asked)["RouteTables"]
    return {table["RouteTableId"] for table in found}


def test_all_routes_of_the_network_lead_to_the_gateway(cloud: Cloud, site: Site) -> None:
    cloud.make_cluster(site)
    network = find_network(cloud, site)
    cloud.client("ec2").create_route_table(VpcId=network)
    for _ in range(2):
        s3_endpoint.make(site)
        (found,) = list_endpoints(cloud)
    assert (found["VpcEndpointType"], found["VpcId"]) == ("Gateway", network)
    assert found["ServiceName"] == f"com.amazonaws.{REGION}.s3"
    assert {*found["RouteTableIds"]} == list_tables(cloud, network)
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == OURS


def test_a_table_that_came_later_is_led_there_too(cloud: Cloud, site: Site) -> None:
    cloud.make_cluster(site)
    s3_endpoint.make(site)
    network = find_network(cloud, site)
    cloud.client("ec2").create_route_table(VpcId=network)
    s3_endpoint.make(site)
    (found,) = list_endpoints(cloud)
    assert {*found["RouteTableIds"]} == list_tables(cloud, network)


def test_somebody_elses_gateway_is_left_as_it_is(cloud: Cloud, site: Site) -> None:
    cloud.make_cluster(site)
    network = find_network(cloud, site)
    name = f"com.amazonaws.{REGION}.s3"
    cloud.client("ec2").create_vpc_endpoint(VpcId=network, ServiceName=name)
    before = list_endpoints(cloud)
    s3_endpoint.make(site)
    s3_endpoint.remove(site)
    assert list_endpoints(cloud) == before
    assert site.ledger.entries() == []


def test_a_network_of_somebody_elses_gets_none(cloud: Cloud, site: Site) -> None:
    cloud.make_cluster(site)
    for mine in (cloud.site(make_cluster=False), cloud.site(choices=EXISTING)):
        s3_endpoint.make(mine)
        assert s3_endpoint.plan(mine.environment) == []
    assert list_endpoints(cloud) == []
    (row,) = s3_endpoint.plan(site.environment)
    assert row.cost == "", "a gateway costs nothing"


def test_it_comes_with_the_cluster_and_goes_before_it(
    cloud: Cloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network with an endpoint can't be deleted."""
    monkeypatch.setattr(aws, "CLUSTER_INTERVAL", 0.01)
    cloud.install_eksctl()
    apply.make_cluster(site)
    assert len(list_endpoints(cloud)) == 1
    left: list[int] = []
    monkeypatch.setattr(cluster, "remove", lambda _: left.append(len(list_endpoints(cloud))))
    destroy.remove_cluster(site)
    assert left == [0]


def test_killed_at_any_call_it_is_completed_and_removed(cloud: Cloud) -> None:
    deaths = 0
    for number, event in kill_at_each_call(
        cloud, s3_endpoint.make, lambda: cloud.make_cluster(cloud.site())
    ):
        after = cloud.site()
        assert after.ledger.entries() or not list_endpoints(cloud), f"unrecorded: {event} {number}"
        s3_endpoint.make(after)
        assert len(list_endpoints(cloud)) == 1
        s3_endpoint.remove(after)
        assert (list_endpoints(cloud), after.ledger.entries()) == ([], [])
        deaths += 1
    assert deaths == 2


def test_killed_at_any_call_a_removal_is_ended(cloud: Cloud) -> None:
    def make_both() -> None:
        cloud.make_cluster(cloud.site())
        s3_endpoint.make(cloud.site())

    deaths = 0
    for _ in kill_at_each_call(cloud, s3_endpoint.remove, make_both):
        s3_endpoint.remove(cloud.site())
        assert (list_endpoints(cloud), cloud.site().ledger.entries()) == ([], [])
        deaths += 1
    assert deaths == 2
