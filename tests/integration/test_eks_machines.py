"""The machines of the node groups, before any is started: EC2 and quotas as moto has them."""

from __future__ import annotations

from typing import Any

import pytest

from eks import machines
from eks.cluster_choices import Choices
from eks.eksctl import read_cluster_config
from eks.site import Site
from lab.errors import QuotaReached, RegionLacks
from tests.support import cloud as clouds
from tests.support.cloud import Cloud

ZONES = {f"eu-central-1{letter}": f"euc1-az{n}" for n, letter in enumerate("abc", 1)}
GPUS = {"g5.xlarge", "g6.xlarge", "g4dn.xlarge"}


def sizes(group: str, **chosen: Any) -> Choices:
    return Choices(sizes={group: chosen})


def list_types(site: Site) -> set[str]:
    groups = read_cluster_config(site.environment, site.kit)["managedNodeGroups"]
    return {*machines.list_instance_types(groups)}


def say(site: Site, subject: str) -> str:
    """Return what the check says of a subject."""
    (line,) = [line for line in machines.check_machines(site) if line.startswith(subject)]
    return line.removeprefix(subject).strip()


def test_what_a_region_must_have_depends_on_the_options(cloud: Cloud, site: Site) -> None:
    assert list_types(site) & GPUS == set()
    assert list_types(cloud.site(options=("gpu",))) >= GPUS
    assert "m6i.large" in say(site, "region")
    assert machines.check_machines(cloud.site(make_cluster=False)) == ["region  eu-central-1"]


def test_a_type_that_a_region_lacks(cloud: Cloud, site: Site) -> None:
    machines.check_instance_types(site.aws, ["m5.large", "m5.large", "g4dn.xlarge"])
    machines.check_instance_types(site.aws, [])
    mine = cloud.site(choices=sizes("steps", instanceTypes=["m5.large", "x9.mega"]))
    with pytest.raises(RegionLacks, match=r"eu-central-1 has no machines of type x9\.mega$"):
        machines.check_machines(mine)


def test_a_type_that_cannot_run_the_images(cloud: Cloud) -> None:
    mine = cloud.site(choices=sizes("steps", instanceTypes=["m7g.large"]))
    with pytest.raises(RegionLacks, match=r"m7g\.large is arm64, and the images are linux/amd64"):
        machines.check_machines(mine)


# --- Zones --------------------------------------------------------------------------------------


def test_eksctl_takes_the_zones_that_have_all_types() -> None:
    all_types = {"m6i.large", "m5.large"}
    offers = {zone: {*all_types, "c5.large"} for zone in ZONES}
    usable = machines.list_usable_zones
    assert usable("eu-central-1", ZONES, offers, all_types) == sorted(ZONES)
    offers["eu-central-1b"] = {"m6i.large"}
    assert usable("eu-central-1", ZONES, offers, all_types) == ["eu-central-1a", "eu-central-1c"]
    assert usable("eu-central-1", ZONES, {}, all_types) == []
    known = {"us-east-1a": "use1-az3", "us-east-1b": "use1-az1"}
    offers = dict.fromkeys(known, all_types)
    assert usable("us-east-1", known, offers, all_types) == ["us-east-1b"], "eksctl avoids az3"


def test_the_zones_of_a_new_cluster(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say(site, "zones") == ", ".join(sorted(ZONES))
    here = machines.list_offers

    def list_fewer(aws: Any, place: str, types: Any) -> list[Any]:
        """Return what there is, as if only one zone had machines of the type m7i.large."""
        found = here(aws, place, types)
        kept = ("eu-central-1", "eu-central-1a")
        return [o for o in found if o["InstanceType"] != "m7i.large" or o["Location"] in kept]

    monkeypatch.setattr(machines, "list_offers", list_fewer)
    with pytest.raises(RegionLacks) as refused:
        machines.check_machines(site)
    assert "has 1 of them: eu-central-1b lacks m7i.large; eu-central-1c lacks" in refused.value.what
    assert "[sizes.GROUP]" in refused.value.fix


def test_zones_that_are_chosen_already_are_not_asked_for(cloud: Cloud, site: Site) -> None:
    cloud.make_cluster(site)
    lines = machines.check_machines(site)
    assert not [line for line in lines if line.startswith(("zones", "quotas"))]
    subnets = {zone: f"subnet-{n}" for n, zone in enumerate(ZONES)}
    mine = cloud.site(cluster="another", choices=Choices(vpc={"id": "vpc-1", "private": subnets}))
    assert not [line for line in machines.check_machines(mine) if line.startswith("zones")]


# --- Quotas -------------------------------------------------------------------------------------


def test_what_a_new_account_may_run_is_not_enough(site: Site) -> None:
    clouds.QUOTAS[machines.QUOTAS[False]] = 5  # what a new account has
    with pytest.raises(QuotaReached) as refused:
        machines.check_machines(site)
    assert "lets this account run 5 on-demand vCPUs" in refused.value.what
    assert "0 run, and the cluster needs 6" in refused.value.what
    assert "L-1216C47A" in refused.value.fix


def test_spot_machines_have_a_quota_of_their_own(site: Site) -> None:
    clouds.QUOTAS[machines.QUOTAS[True]] = 1
    with pytest.raises(QuotaReached, match=r"1 spot vCPUs .* needs 2"):
        machines.check_machines(site)


def test_machines_that_run_already_count(cloud: Cloud, site: Site) -> None:
    ec2 = cloud.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"] or [{"ImageId": "ami-12345678"}]
    for kind in ("m5.xlarge", "p3.2xlarge"):  # the second is under another quota
        given = {"ImageId": image[0]["ImageId"], "InstanceType": kind}
        ec2.run_instances(MinCount=1, MaxCount=1, **given)
    clouds.QUOTAS[machines.QUOTAS[False]] = 10
    assert say(site, "quotas") == (
        "6 on-demand vCPUs needed, 6 of 10 free; 2 spot vCPUs needed, 64 of 64 free"
    )
    clouds.QUOTAS[machines.QUOTAS[False]] = 9
    with pytest.raises(QuotaReached, match="4 run, and the cluster needs 6"):
        machines.check_machines(site)


def test_a_larger_choice_needs_more(cloud: Cloud) -> None:
    chosen = sizes(
        "airflow", instanceTypes=["m6i.2xlarge"], minSize=3, desiredCapacity=4, maxSize=6
    )
    assert say(cloud.site(choices=chosen), "quotas").startswith("32 on-demand vCPUs needed")
