"""The cluster: how eksctl is called, and what becomes of a cluster that is half made.

moto plays EKS and CloudFormation; `tests/support/eksctl.py` leaves there what the real eksctl
would.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import jsonschema
import pytest
import yaml
from moto.cloudformation.models import cloudformation_backends
from moto.eks.models import eks_backends

from eks import agent, aws, cluster, control_plane_logs, eksctl, environment, kubeconfig, token
from eks.aws import Aws
from eks.cluster_choices import Choices
from eks.environment import CLUSTER_TAG, TAG
from eks.site import Site
from lab.config import KIT
from lab.errors import (
    BusyError,
    CloudBusy,
    LabError,
    MachineError,
    MissingPermission,
    NameTaken,
    NotRunningError,
    PromotionError,
    QuotaReached,
    RegionLacks,
)
from lab.files import write_private_file
from lab.wait import NotYet, wait_until
from tests.support import cloud as clouds
from tests.support import eksctl as stand_in
from tests.support.cloud import Cloud, kill_at_each_call

NAME = "mlops-lab-staging"
SCHEMA = KIT.parent / "shared" / "schemas" / "eksctl-v1alpha5.schema.json"
GROUPS = {"airflow", "steps"}
OURS = {TAG: "staging", CLUSTER_TAG: NAME}
DRIVERS = (cluster.DRIVER, cluster.DISK_DRIVER)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "CLUSTER_INTERVAL", 0.01)


@pytest.fixture
def tool(cloud: Cloud) -> Path:
    """Return the folder of an eksctl that is on PATH."""
    return cloud.install_eksctl()


def read_config(name: str = "staging") -> dict[str, Any]:
    return eksctl.read_cluster_config(environment.load(name, KIT), KIT)


def describe_cluster(cloud: Cloud) -> Any:
    return cloud.client("eks").describe_cluster(name=NAME)["cluster"]


def list_clusters_and_stacks(cloud: Cloud) -> tuple[list[str], list[str]]:
    """Return the names of the clusters and of the stacks."""
    stacks = cloud.client("cloudformation").describe_stacks()["Stacks"]
    names = sorted(stack["StackName"] for stack in stacks)
    return cloud.client("eks").list_clusters()["clusters"], names


def list_in_cluster(cloud: Cloud, what: str) -> set[str]:
    return set(getattr(cloud.client("eks"), f"list_{what}")(clusterName=NAME)[what])


def list_eksctl_commands(site: Site) -> list[str]:
    """List the commands that eksctl was given, without the file's name."""
    log = site.folder / "eksctl.log"
    lines = log.read_text().splitlines() if log.exists() else []
    told = [line.split("/eksctl ")[1] for line in lines if line.startswith("+ ")]
    return [line.partition(" --config-file")[0] for line in told]


def set_stack_state(cloud: Cloud, state: str, reason: str = "") -> Any:
    """Set the state of moto's stack of the network, and its reason; return the stack."""
    known = cloudformation_backends[clouds.ACCOUNT][clouds.REGION].stacks
    (stack,) = [s for s in known.values() if s.name == f"eksctl-{NAME}-cluster"]
    stack.status = state
    if reason:
        stack._add_stack_event("CREATE_FAILED", resource_status_reason=reason)
    return stack


# --- The configuration file ---------------------------------------------------------------------


@pytest.mark.parametrize("name", environment.list_names(KIT))
def test_eksctls_schema_takes_the_file(name: str) -> None:
    check_schema(read_config(name))
    broken = read_config(name) | {"managedNodeGroups": [{"name": 1}]}
    with pytest.raises(jsonschema.ValidationError):
        check_schema(broken)


def check_schema(config: dict[str, Any]) -> None:
    """Raise unless eksctl's schema takes the file's content."""
    if not SCHEMA.exists():
        pytest.skip(f"there is no {SCHEMA}")
    jsonschema.validate(config, json.loads(SCHEMA.read_text()))


CHOSEN = Choices(
    nat_per_zone=True,
    public_access_cidrs=("203.0.113.0/24",),
    sizes={
        "airflow": {"instanceTypes": ["m7i.xlarge"], "minSize": 3, "desiredCapacity": 4},
        "training": {"spot": False, "volumeSize": 200},
    },
)
SUBNETS = {f"{clouds.REGION}{zone}": f"subnet-{zone}" for zone in "ab"}


def test_what_an_environment_chooses_is_in_the_file() -> None:
    chosen = replace(environment.load("staging", KIT), choices=CHOSEN, options=("gpu",))
    found = eksctl.read_cluster_config(chosen, KIT)
    check_schema(found)
    assert found["vpc"]["nat"] == {"gateway": "HighlyAvailable"}
    assert found["vpc"]["publicAccessCIDRs"] == ["203.0.113.0/24"]
    groups = {group["name"]: group for group in found["managedNodeGroups"]}
    assert (groups["airflow"]["desiredCapacity"], groups["airflow"]["volumeSize"]) == (4, 50)
    assert groups["airflow"]["instanceTypes"] == ["m7i.xlarge"]
    assert (groups["training"]["spot"], groups["training"]["volumeSize"]) == (False, 200)
    plain = read_config()
    assert plain["vpc"]["nat"] == {"gateway": "Single"}
    assert "publicAccessCIDRs" not in plain["vpc"]


def test_a_cluster_in_a_network_that_is_there() -> None:
    network = Choices(vpc={"id": "vpc-0a", "private": SUBNETS, "public": SUBNETS})
    chosen = replace(environment.load("staging", KIT), choices=network)
    found = eksctl.read_cluster_config(chosen, KIT)
    check_schema(found)
    listed = {zone: {"id": subnet} for zone, subnet in SUBNETS.items()}
    assert found["vpc"]["id"] == "vpc-0a"
    assert found["vpc"]["subnets"] == {"private": listed, "public": listed}
    assert "nat" not in found["vpc"], "eksctl makes none in it"
    (row,) = [row for row in cluster.plan(chosen) if row.kind == "VPC"]
    assert (row.name, "NAT" in row.cost) == ("vpc-0a", False)


def test_the_file_is_yaml_before_it_is_filled() -> None:
    assert yaml.safe_load((KIT / eksctl.FILE).read_text())["metadata"]["name"] == "${cluster}"


def test_the_cluster_is_the_environments() -> None:
    meta = read_config("production")["metadata"]
    assert meta == {
        "name": "mlops-lab-production",
        "region": "eu-central-1",
        "version": "1.36",
        "tags": {TAG: "production", CLUSTER_TAG: "mlops-lab-production"},
    }


def test_nodes_are_private_and_give_no_pod_their_role() -> None:
    for group in read_config()["managedNodeGroups"]:
        assert group["privateNetworking"] is True
        assert group["ssh"] == {"allow": False}
        assert (group["disableIMDSv1"], group["disablePodIMDS"]) == (True, True)
        assert group["volumeEncrypted"] is True
        assert group["tags"] == OURS


def test_which_pods_the_groups_are_for() -> None:
    staging = environment.load("staging", KIT)
    config = eksctl.read_cluster_config(replace(staging, options=("gpu",)), KIT)
    groups = {group["name"]: group for group in config["managedNodeGroups"]}
    assert set(groups) == GROUPS | {"training"}, "and without the option there is no training"
    for name, group in groups.items():
        assert group["labels"] == {"mlops-lab/role": name}
    assert "spot" not in groups["airflow"]
    assert "taints" not in groups["airflow"]
    assert groups["steps"]["spot"]
    assert groups["training"]["spot"]
    assert groups["steps"]["taints"] == [
        {"key": "mlops-lab/spot", "value": "true", "effect": "NoSchedule"}
    ]
    assert groups["training"]["taints"] == [
        {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    ]
    assert (groups["training"]["minSize"], groups["training"]["desiredCapacity"]) == (0, 0)
    assert len(groups["steps"]["instanceTypes"]) > 2


def test_airflow_has_a_node_in_each_of_the_three_zones() -> None:
    (airflow,) = [
        group for group in read_config()["managedNodeGroups"] if group["name"] == "airflow"
    ]
    assert (airflow["minSize"], airflow["desiredCapacity"], airflow["maxSize"]) == (3, 3, 4)


def test_the_add_ons() -> None:
    addons = {addon["name"]: addon for addon in read_config()["addons"]}
    assert set(addons) == {
        "eks-pod-identity-agent",
        "vpc-cni",
        "coredns",
        "kube-proxy",
        "aws-ebs-csi-driver",
        "aws-efs-csi-driver",
    }
    assert json.loads(addons["vpc-cni"]["configurationValues"]) == {"enableNetworkPolicy": "true"}
    for name in ("vpc-cni", "aws-ebs-csi-driver", "aws-efs-csi-driver"):
        assert addons[name]["useDefaultPodIdentityAssociations"]


def test_a_plan_names_what_costs() -> None:
    rows = cluster.plan(environment.load("staging", KIT))
    assert [row.kind for row in rows] == ["EKS cluster", "VPC", *["Node group"] * 2]
    assert all(row.cost and "$" not in row.cost for row in rows)


# --- eksctl -------------------------------------------------------------------------------------


def test_eksctl_is_looked_for_before_anything_is_made(
    cloud: Cloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cloud.folder))
    with pytest.raises(MachineError, match="there is no eksctl") as caught:
        eksctl.list_tools(site)
    assert "eksctl.io" in caught.value.fix
    assert eksctl.list_tools(cloud.site(make_cluster=False)) == []


def test_an_eksctl_of_another_time(cloud: Cloud, site: Site) -> None:
    cloud.install_eksctl("0.150.0")
    with pytest.raises(MachineError, match=r"0\.150\.0"):
        eksctl.list_tools(site)


def test_eksctl_is_shown(site: Site, tool: Path) -> None:
    assert eksctl.list_tools(site) == [f"eksctl 0.230.0 ({tool}/eksctl)"]


# --- Creation -----------------------------------------------------------------------------------


def test_a_cluster_is_made_and_removed(cloud: Cloud, site: Site, tool: Path) -> None:
    assert not cluster.exists(site)
    cluster.make(site)
    assert cluster.exists(site)
    assert describe_cluster(cloud)["version"] == "1.36"
    assert list_in_cluster(cloud, "nodegroups") == GROUPS
    assert agent.AGENT in list_in_cluster(cloud, "addons")
    entry = site.ledger.find("cluster", NAME)
    assert entry
    assert (entry.state, entry.facts) == ("made", {"arn": describe_cluster(cloud)["arn"]})
    assert list_eksctl_commands(site) == ["create cluster --write-kubeconfig=false"]
    cluster.make(site)
    assert len(list_eksctl_commands(site)) == 1
    kubeconfig.write_kubeconfig(site)
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud) == ([], [])
    assert site.ledger.entries() == []
    assert not (site.folder / "kubeconfig").exists()
    cluster.remove(site)


def test_what_the_file_names_and_the_cluster_lacks_is_added(
    cloud: Cloud, site: Site, tool: Path
) -> None:
    cloud.make_cluster(site, agent.AGENT, tags=OURS)
    cluster.make(site)
    assert list_in_cluster(cloud, "nodegroups") == GROUPS
    assert list_in_cluster(cloud, "addons") == {addon["name"] for addon in read_config()["addons"]}
    # And neither waits for pods.
    assert list_eksctl_commands(site) == ["create addon", "create nodegroup"]


def test_an_older_cluster_is_upgraded(cloud: Cloud, site: Site, tool: Path) -> None:
    cloud.make_cluster(site, tags=OURS, version="1.35")
    cluster.make(site)
    assert list_eksctl_commands(site)[0] == "upgrade cluster --approve"
    assert describe_cluster(cloud)["tags"]["upgraded-to"] == "1.36"


def test_a_newer_cluster_is_not_taken_back(cloud: Cloud, site: Site, tool: Path) -> None:
    cloud.make_cluster(site, tags=OURS, version="1.37")
    with pytest.raises(PromotionError, match=r"has Kubernetes 1\.37.* asks for 1\.36"):
        cluster.make(site)
    assert list_eksctl_commands(site) == []


def test_a_cluster_of_long_ago_is_upgraded_step_by_step(
    cloud: Cloud, site: Site, tool: Path
) -> None:
    cloud.make_cluster(site, tags=OURS, version="1.34")
    with pytest.raises(
        PromotionError, match=r"has Kubernetes 1\.34, and can't go to 1\.36"
    ) as error:
        cluster.make(site)
    assert "set kubernetes to 1.35 in eks/environments/staging.toml" in error.value.fix
    assert list_eksctl_commands(site) == []


@pytest.mark.parametrize("moment", ["stack", "cluster", "groups"])
def test_an_eksctl_that_failed_says_why_and_is_made_good(
    cloud: Cloud, site: Site, tool: Path, moment: str
) -> None:
    """It leaves a network without a cluster or a cluster without nodes; the next apply ends it."""
    (tool / "stop").write_text(moment)
    with pytest.raises(LabError, match=f"stopped at {moment}") as caught:
        cluster.make(site)
    assert caught.value.log == site.folder / "eksctl.log"
    entry = site.ledger.find("cluster", NAME)
    assert entry
    assert entry.state == "intended"
    (tool / "stop").unlink()
    cluster.make(site)
    assert list_in_cluster(cloud, "nodegroups") == GROUPS
    assert list_in_cluster(cloud, "addons") == {addon["name"] for addon in read_config()["addons"]}
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud) == ([], [])


@pytest.mark.parametrize("moment", ["stack", "cluster", "groups"])
def test_what_an_eksctl_that_failed_has_left_is_removed(
    cloud: Cloud, site: Site, tool: Path, moment: str
) -> None:
    (tool / "stop").write_text(moment)
    with pytest.raises(LabError):
        cluster.make(site)
    (tool / "stop").unlink()
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud) == ([], [])
    assert site.ledger.entries() == []


VPCS = (
    "Resource handler returned message: The maximum number of VPCs has been reached."
    " (HandlerErrorCode: ServiceLimitExceeded)"
)
ROLES = (
    "API: iam:CreateRole User: arn:aws:iam::1:user/x is not authorized to perform:"
    " iam:CreateRole on resource: arn:aws:iam::1:role/y"
)
ZONES = (
    "Cannot create cluster because eu-central-1c does not have sufficient capacity"
    " (Service: AmazonEKS; Error Code: UnsupportedAvailabilityZoneException)"
)
REASONS: list[tuple[str, type[LabError], str]] = [
    (VPCS, QuotaReached, "maximum number of VPCs"),
    (ROLES, MissingPermission, "iam:CreateRole is not allowed"),
    (ZONES, RegionLacks, "UnsupportedAvailabilityZone"),
    ("Role with name x already exists.", NameTaken, "already exists"),
    ("Nobody knows.", PromotionError, "Nobody knows"),
]


@pytest.mark.parametrize(("reason", "kind", "said"), REASONS)
def test_cloudformation_says_why(
    cloud: Cloud,
    site: Site,
    tool: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    kind: type[LabError],
    said: str,
) -> None:
    stand_in.make_stack(
        cloud.client, f"eksctl-{NAME}-cluster", {stand_in.OWNER: NAME, **OURS}, stand_in.NETWORK
    )
    set_stack_state(cloud, "ROLLBACK_COMPLETE", reason)
    (tool / "eksctl").write_text('#!/bin/sh\n[ "$1" = version ] && echo 0.230.0 || exit 1\n')
    monkeypatch.setattr(cluster, "delete_stacks", lambda _: None)
    with pytest.raises(kind, match=said) as caught:
        cluster.make(site)
    assert type(caught.value) is kind


def test_a_stack_on_its_way_is_waited_for(
    cloud: Cloud, site: Site, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """eksctl was killed; CloudFormation goes on."""
    cloud.make_cluster(site, tags=OURS)
    stack = set_stack_state(cloud, "CREATE_IN_PROGRESS")
    monkeypatch.setattr(aws, "CLUSTER_SECONDS", 0.1)
    with pytest.raises(CloudBusy, match="CREATE_IN_PROGRESS"):
        cluster.make(site)
    assert list_eksctl_commands(site) == []
    stack.status = "CREATE_COMPLETE"
    cluster.make(site)
    assert "create cluster" not in " ".join(list_eksctl_commands(site))


def test_a_cluster_on_its_way_is_waited_for(
    cloud: Cloud, site: Site, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.make_cluster(site, tags=OURS)
    found = eks_backends[clouds.ACCOUNT][clouds.REGION].clusters[NAME]
    found.status = "CREATING"
    assert not cluster.exists(site)
    monkeypatch.setattr(aws, "CLUSTER_SECONDS", 0.1)
    with pytest.raises(CloudBusy, match="it is CREATING"):
        cluster.make(site)
    assert site.ledger.find("cluster", NAME)


def test_a_cluster_that_failed(cloud: Cloud, site: Site, tool: Path) -> None:
    cloud.make_cluster(site, tags=OURS)
    eks_backends[clouds.ACCOUNT][clouds.REGION].clusters[NAME].status = "FAILED"
    with pytest.raises(PromotionError, match=f"cluster {NAME} is FAILED") as caught:
        cluster.make(site)
    assert "destroy" in caught.value.fix


def test_a_node_group_that_failed(cloud: Cloud, site: Site, tool: Path) -> None:
    cluster.make(site)
    groups = eks_backends[clouds.ACCOUNT][clouds.REGION].clusters[NAME].nodegroups
    groups["steps"].status = "CREATE_FAILED"
    issue = "You've reached your quota: MaxSpotInstanceCountExceeded"
    groups["steps"].health = {"issues": [{"code": "x", "message": issue}]}
    with pytest.raises(QuotaReached, match="node group steps is CREATE_FAILED"):
        cluster.make(site)


OTHERS = [{}, {TAG: "staging"}, {**OURS, TAG: "production"}, {**OURS, CLUSTER_TAG: "another"}]


@pytest.mark.parametrize("tags", OTHERS)
def test_somebody_elses_cluster(cloud: Cloud, site: Site, tool: Path, tags: dict[str, str]) -> None:
    cloud.make_cluster(site, tags=tags)
    with pytest.raises(NameTaken, match=f"cluster {NAME}"):
        cluster.make(site)
    assert site.ledger.entries() == []
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud)[0] == [NAME]
    assert list_eksctl_commands(site) == []


@pytest.mark.parametrize("tags", OTHERS)
def test_somebody_elses_stack(cloud: Cloud, site: Site, tool: Path, tags: dict[str, str]) -> None:
    tags = {stand_in.OWNER: NAME, **tags}
    stand_in.make_stack(cloud.client, f"eksctl-{NAME}-cluster", tags, stand_in.NETWORK)
    with pytest.raises(NameTaken, match=f"stack eksctl-{NAME}-cluster"):
        cluster.make(site)
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud)[1] == [f"eksctl-{NAME}-cluster"]


def test_stacks_of_a_cluster_with_a_longer_name_stay(cloud: Cloud, site: Site, tool: Path) -> None:
    cluster.make(site)
    other = f"{NAME}-2"
    stand_in.make_stack(
        cloud.client, f"eksctl-{other}-cluster", {stand_in.OWNER: other, **OURS}, stand_in.NETWORK
    )
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud) == ([], [f"eksctl-{other}-cluster"])


def test_without_the_ledger_the_tag_tells(cloud: Cloud, site: Site, tool: Path) -> None:
    cluster.make(site)
    site.ledger.path.unlink()
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud) == ([], [])


@pytest.mark.parametrize("state", ["CREATE_COMPLETE", "DELETE_FAILED"])
def test_without_the_ledger_a_network_without_a_cluster_is_removed(
    cloud: Cloud, site: Site, tool: Path, state: str
) -> None:
    """Another checkout's apply was killed while CloudFormation built it, or its destroy failed."""
    tags = {stand_in.OWNER: NAME, **OURS}
    stand_in.make_stack(cloud.client, f"eksctl-{NAME}-cluster", tags, stand_in.NETWORK)
    set_stack_state(cloud, state)
    assert site.ledger.entries() == []
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud) == ([], [])
    assert [
        vpc for vpc in cloud.client("ec2").describe_vpcs()["Vpcs"] if not vpc["IsDefault"]
    ] == []


def test_without_the_ledger_a_network_on_its_way_is_waited_for(
    cloud: Cloud, site: Site, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {stand_in.OWNER: NAME, **OURS}
    stand_in.make_stack(cloud.client, f"eksctl-{NAME}-cluster", tags, stand_in.NETWORK)
    set_stack_state(cloud, "CREATE_IN_PROGRESS")
    monkeypatch.setattr(aws, "CLUSTER_SECONDS", 0.1)
    with pytest.raises(CloudBusy, match="CREATE_IN_PROGRESS"):
        cluster.remove(site)
    assert list_clusters_and_stacks(cloud)[1] == [f"eksctl-{NAME}-cluster"]


@pytest.mark.parametrize("tags", [OURS, *({stand_in.OWNER: NAME, **tags} for tags in OTHERS)])
def test_without_the_ledger_a_network_of_somebody_elses_stays(
    cloud: Cloud, site: Site, tool: Path, tags: dict[str, str]
) -> None:
    """eksctl's own tag is not enough, and neither is ours."""
    name = f"eksctl-{NAME}-cluster"
    stand_in.make_stack(cloud.client, name, tags, stand_in.NETWORK)
    cluster.remove(site)
    assert list_clusters_and_stacks(cloud)[1] == [name]


HANGS = """#!/bin/sh
[ "$1" = version ] && echo 0.230.0 && exit
echo $$ > "$0.pid.part" && mv "$0.pid.part" "$0.pid"
exec sleep 300
"""
MAKES = """
import sys
from pathlib import Path
from eks import eksctl, environment, site
from lab.config import KIT
staging = site.create_site(environment.load("staging"), Path(sys.argv[1]), KIT)
eksctl.run_eksctl(staging, "create", "cluster")
"""


def test_an_eksctl_whose_command_was_killed_is_left_to_end(
    cloud: Cloud, site: Site, tool: Path
) -> None:
    """It goes on without us: no other may start, and nothing may be removed meanwhile."""
    original = (tool / "eksctl").read_text()
    (tool / "eksctl").write_text(HANGS)
    command = subprocess.Popen([sys.executable, "-c", MAKES, str(site.folder.parent)], cwd=KIT)
    pid = tool / "eksctl.pid"
    wait_until(lambda: expect_false(not pid.exists()), timeout=60, what="eksctl")
    command.kill()
    command.wait()
    (tool / "eksctl").write_text(original)
    try:
        for do in (cluster.make, cluster.remove):
            with pytest.raises(BusyError, match="still at work") as error:
                do(site)
            assert error.value.log == site.folder / "eksctl.log"
        assert list_clusters_and_stacks(cloud) == ([], [])
        assert site.ledger.entries() == []
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    wait_until(lambda: expect_false(is_eksctl_running(site)), timeout=60, what="the end of eksctl")
    cluster.make(site)
    assert list_clusters_and_stacks(cloud)[0] == [NAME]


def expect_false(condition: bool) -> None:
    if condition:
        raise NotYet("it is not so yet")


def is_eksctl_running(site: Site) -> bool:
    """Return whether an eksctl still works on this site."""
    try:
        eksctl.refuse_running_eksctl(site)
    except BusyError:
        return True
    return False


GROUP = f"/aws/eks/{NAME}/cluster"
DAYS = 30


def read_log_retention(cloud: Cloud) -> dict[str, int | None]:
    """Return for how many days each log group is kept; None for ever."""
    found = cloud.client("logs").describe_log_groups()["logGroups"]
    return {one["logGroupName"]: one.get("retentionInDays") for one in found}


def test_what_the_control_plane_logged_goes_with_it(cloud: Cloud, site: Site, tool: Path) -> None:
    ours, other = GROUP, f"/aws/eks/{NAME}-2/cluster"
    cluster.make(site)
    cloud.client("logs").create_log_group(logGroupName=other)
    assert read_log_retention(cloud) == {ours: DAYS, other: None}
    cluster.remove(site)
    assert read_log_retention(cloud) == {other: None}


def test_logs_of_somebody_elses_cluster_stay(cloud: Cloud, site: Site, tool: Path) -> None:
    """Ours was deleted by hand, and another cluster has its name now."""
    cluster.make(site)
    stand_in.delete_cluster(cloud.client, read_config())
    cloud.make_cluster(site)
    cluster.remove(site)
    assert list(read_log_retention(cloud)) == [GROUP]
    assert list_clusters_and_stacks(cloud)[0] == [NAME]


@pytest.mark.parametrize("moment", ["cluster", "groups"])
def test_logs_are_not_kept_for_ever_when_eksctl_was_killed(
    cloud: Cloud, site: Site, tool: Path, moment: str
) -> None:
    """The stack turns logging on; eksctl sets the retention later, unless it is killed before."""
    (tool / "stop").write_text(moment)
    with pytest.raises(LabError):
        cluster.make(site)
    assert read_log_retention(cloud) == {GROUP: None if moment == "cluster" else DAYS}
    (tool / "stop").unlink()
    cluster.make(site)
    assert read_log_retention(cloud) == {GROUP: DAYS}


def test_logs_that_somebody_keeps_for_ever_are_not_after_an_apply(
    cloud: Cloud, site: Site, tool: Path
) -> None:
    cluster.make(site)
    cloud.client("logs").delete_retention_policy(logGroupName=GROUP)
    cluster.make(site)
    assert read_log_retention(cloud) == {GROUP: DAYS}


def test_a_log_group_that_comes_late(
    cloud: Cloud, site: Site, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EKS creates it with the first log entry; until then there is no retention to set."""
    cluster.make(site)
    client = cloud.client("logs")
    client.delete_log_group(logGroupName=GROUP)
    looks = iter(range(100))
    original = control_plane_logs.has_logging

    def create_group_late(site: Site) -> bool:
        if next(looks) == 1:
            client.create_log_group(logGroupName=GROUP)
        return original(site)

    monkeypatch.setattr(control_plane_logs, "has_logging", create_group_late)
    cluster.make(site)
    assert read_log_retention(cloud) == {GROUP: DAYS}


def test_a_log_group_that_never_comes(
    cloud: Cloud, site: Site, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With logging on, that is an error; with logging off, there is nothing to keep."""
    cluster.make(site)
    cloud.client("logs").delete_log_group(logGroupName=GROUP)
    monkeypatch.setattr(control_plane_logs, "LOG_SECONDS", 0.05)
    with pytest.raises(CloudBusy, match=f"log group {GROUP} was not ready .* has not made it"):
        cluster.make(site)
    off = {"clusterLogging": [{"types": ["api", "audit"], "enabled": False}]}
    cloud.client("eks").update_cluster_config(name=NAME, logging=off)
    cluster.make(site)
    assert read_log_retention(cloud) == {}


def make_eksctl_runner(cloud: Cloud) -> Any:
    """Return a `run_eksctl` that runs in this process and dies with it."""

    def run(site: Site, *arguments: str) -> None:
        told = eksctl.read_cluster_config(site.environment, site.kit)
        stand_in.run_command(site.aws.client, arguments[0], arguments[1], told, stop=lambda _: None)

    return run


def kill_with_eksctl(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, do: Any, between: Any
) -> Iterator[tuple[int, str]]:
    """Kill `do` as `kill_at_each_call` does, together with eksctl."""
    monkeypatch.setattr(cluster, "run_eksctl", make_eksctl_runner(cloud))
    yield from kill_at_each_call(cloud, do, between)


@pytest.mark.sweep
def test_killed_at_any_call_it_is_completed_and_removed(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a power failure: eksctl dies with us, at each of its own calls, too."""
    count = 0
    for number, event in kill_with_eksctl(cloud, monkeypatch, cluster.make, lambda: None):
        after = cloud.site()
        assert after.ledger.find("cluster", NAME) or list_clusters_and_stacks(cloud) == ([], [])
        cluster.make(after)
        assert list_in_cluster(cloud, "nodegroups") == GROUPS, f"after {event} {number}"
        assert read_log_retention(cloud) == {GROUP: DAYS}, f"after {event} {number}"
        assert list_in_cluster(cloud, "addons") == {
            addon["name"] for addon in read_config()["addons"]
        }
        cluster.remove(after)
        assert list_clusters_and_stacks(cloud) == ([], [])
        assert after.ledger.entries() == []
        count += 1
    assert count == 2 * ((2 + 6 + 2 * 3 + 2) if cloud.every else 5)


# --- A cluster that exists already --------------------------------------------------------------


@pytest.fixture
def theirs(cloud: Cloud) -> Site:
    return cloud.site(make_cluster=False)


def test_a_cluster_that_is_there_gets_the_agent(cloud: Cloud, theirs: Site) -> None:
    cloud.make_cluster(theirs, *DRIVERS)
    clouds.AGENT_STATES.extend(["CREATING", "CREATING", "DEGRADED"])
    cluster.make(theirs)
    assert agent.AGENT in list_in_cluster(cloud, "addons")
    assert [entry.kind for entry in theirs.ledger.entries()] == ["add-on"]
    cluster.make(theirs)
    cluster.remove(theirs)
    assert list_in_cluster(cloud, "addons") == {*DRIVERS}
    assert list_clusters_and_stacks(cloud)[0] == [NAME]
    assert theirs.ledger.entries() == []


def test_an_agent_that_was_there_stays(cloud: Cloud, theirs: Site) -> None:
    cloud.make_cluster(theirs, *DRIVERS, agent.AGENT)
    cluster.make(theirs)
    assert theirs.ledger.entries() == []
    cluster.remove(theirs)
    assert agent.AGENT in list_in_cluster(cloud, "addons")


def test_an_agent_that_can_not_run(cloud: Cloud, theirs: Site) -> None:
    cloud.make_cluster(theirs, *DRIVERS)
    clouds.AGENT_STATES.append("CREATE_FAILED")
    with pytest.raises(PromotionError, match="CREATE_FAILED"):
        cluster.make(theirs)
    assert theirs.ledger.find("add-on", f"{NAME}/{agent.AGENT}")


def test_a_cluster_that_will_not_do(cloud: Cloud, theirs: Site) -> None:
    with pytest.raises(PromotionError, match=f"there is no cluster {NAME}"):
        cluster.make(theirs)
    cloud.make_cluster(theirs, version="1.35")
    with pytest.raises(PromotionError, match=r"has Kubernetes 1\.35"):
        cluster.make(theirs)
    assert theirs.ledger.entries() == []
    assert list_in_cluster(cloud, "addons") == set()


def test_drivers_that_a_cluster_must_have(cloud: Cloud, theirs: Site) -> None:
    """The agent comes first: a driver gets its identity through it."""
    cloud.make_cluster(theirs)
    with pytest.raises(PromotionError, match=f"no add-on {cluster.DRIVER}") as error:
        cluster.make(theirs)
    assert f"--name {cluster.DRIVER} " in error.value.fix
    assert list_in_cluster(cloud, "addons") == {agent.AGENT}
    cloud.client("eks").create_addon(clusterName=NAME, addonName=cluster.DRIVER)
    with pytest.raises(PromotionError, match=f"no add-on {cluster.DISK_DRIVER}"):
        cluster.make(theirs)
    cluster.make(cloud.site(make_cluster=False, options=("rds",)))
    cluster.remove(theirs)
    assert list_in_cluster(cloud, "addons") == {cluster.DRIVER}
    assert theirs.ledger.entries() == []


def test_our_agent_stays_when_others_use_it(
    cloud: Cloud, theirs: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.make_cluster(theirs, *DRIVERS)
    cluster.make(theirs)
    role = cloud.client("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")
    cloud.client("eks").create_pod_identity_association(
        clusterName=NAME, namespace="theirs", serviceAccount="x", roleArn=role["Role"]["Arn"]
    )
    cluster.remove(theirs)
    assert agent.AGENT in list_in_cluster(cloud, "addons")
    assert theirs.ledger.entries() == []
    assert f"{agent.AGENT} stays in {NAME}" in capsys.readouterr().out


def test_a_cluster_that_we_once_made_and_now_keep(cloud: Cloud, site: Site, tool: Path) -> None:
    cluster.make(site)
    cluster.remove(cloud.site(make_cluster=False))
    assert list_clusters_and_stacks(cloud)[0] == [NAME]


# --- Access to it -------------------------------------------------------------------------------


def test_kubectls_file(cloud: Cloud, site: Site) -> None:
    with pytest.raises(NotRunningError):
        kubeconfig.write_kubeconfig(site)
    cloud.make_cluster(site)
    path = kubeconfig.write_kubeconfig(site)
    assert path == site.folder / "kubeconfig"
    assert path.stat().st_mode & 0o777 == 0o600
    found = yaml.safe_load(path.read_text())
    said = describe_cluster(cloud)
    assert found["clusters"][0]["cluster"] == {
        "server": said["endpoint"],
        "certificate-authority-data": said["certificateAuthority"]["data"],
    }
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in path.read_text()


def test_what_kubectl_calls_signs_in(cloud: Cloud, site: Site, tmp_path: Path) -> None:
    """The kubeconfig's command, run elsewhere; STS accepts the request that is in the token."""
    cloud.make_cluster(site)
    found = yaml.safe_load(kubeconfig.write_kubeconfig(site).read_text())["users"][0]["user"][
        "exec"
    ]
    env = {**os.environ, **{entry["name"]: entry["value"] for entry in found["env"]}}
    command = [found["command"], *found["args"]]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=True)
    said = json.loads(done.stdout)
    assert (said["apiVersion"], said["kind"]) == (found["apiVersion"], "ExecCredential")
    url = urlsplit(decode_token(said["status"]["token"]))
    assert parse_qs(url.query)["X-Amz-Signature"] == [compute_signature(url, NAME)]
    assert compute_signature(url, "another") != compute_signature(url, NAME)


def compute_signature(url: SplitResult, name: str) -> str:
    """Compute the signature that STS would for this cluster's name: Signature Version 4."""
    pairs = [pair for pair in url.query.split("&") if not pair.startswith("X-Amz-Signature=")]
    headers = f"host:{url.netloc}\nx-k8s-aws-id:{name}\n"
    signed, empty = "host;x-k8s-aws-id", hashlib.sha256().hexdigest()
    canonical = "\n".join(["GET", "/", "&".join(sorted(pairs)), headers, signed, empty])
    query = parse_qs(url.query)
    scope = query["X-Amz-Credential"][0].partition("/")[2]
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"][0], scope, hashed])
    return hmac.digest(key, text.encode(), "sha256").hex()


def decode_token(text: str) -> str:
    prefix, _, rest = text.partition(".")
    assert prefix == "k8s-aws-v1"
    assert "=" not in rest
    return base64.urlsafe_b64decode(rest + "=" * (-len(rest) % 4)).decode()


def test_a_token_is_for_one_cluster_and_a_minute(
    monkeypatch: pytest.MonkeyPatch, cloud: Cloud
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    made = urlsplit(decode_token(token.create_token(Aws(clouds.REGION), NAME)))
    query = {key: values[0] for key, values in parse_qs(made.query).items()}
    assert made.hostname == f"sts.{clouds.REGION}.amazonaws.com"
    assert (query["Action"], query["X-Amz-Expires"]) == ("GetCallerIdentity", "60")
    assert query["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"


def test_without_credentials_kubectl_is_told_why(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    command = [sys.executable, "-m", "eks.token", clouds.REGION, NAME]
    done = subprocess.run(command, cwd=KIT, capture_output=True, text=True, check=False)
    assert done.returncode == 42
    assert "Unable to locate credentials" in done.stderr
    assert "Traceback" not in done.stderr


def test_eksctls_file_is_private(site: Site, tool: Path) -> None:
    write_private_file(site.folder / "cluster.yaml", "of an earlier time")
    cluster.make(site)
    assert "of an earlier time" not in (site.folder / "cluster.yaml").read_text()
    assert (site.folder / "cluster.yaml").stat().st_mode & 0o777 == 0o600
