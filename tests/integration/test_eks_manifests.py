"""What EKS gets without any option: no key, its own volumes, and the connections that it needs.

test_manifests.py checks of this rendering, too, that every object is valid and every container
restricted; test_eks_options.py checks it of each option.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks import difference, environment, rendering
from lab.cluster import manifests
from lab.config import KIT
from tests.support.needs import need_renderers
from tests.support.pods import (
    is_task,
    parse_quantity,
    set_value,
    sum_resource,
)
from tests.support.promotion import (
    ALL,
    EKS,
    NEEDED,
    REFUSED,
    can_connect,
    can_run_on,
    dump_objects,
    find_secrets,
    parse_airflow_config,
    read_node_groups,
)
from tests.support.renderings import (
    Object,
    Pod,
    eks_objects,
    eks_pods,
    find_object,
    locked_images,
    objects,
    objects_of_kind,
    pods,
    staging,
    temporary_home,
)
from tests.support.values import KEYS, step_variables

pytestmark = pytest.mark.kind

OFF_AWS = {
    "AWS_ENDPOINT_URL_S3",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
}


# --- No key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", sorted(KEYS))
def test_no_cluster_has_a_key(word: str) -> None:
    assert word not in dump_objects(objects("overlay", "chart", *EKS))


@pytest.mark.parametrize("word", ["AWS_ENDPOINT", "team-a", "eks-auth", "role-keys"])
def test_nothing_speaks_of_kinds_stand_ins(word: str) -> None:
    assert word in dump_objects(objects("overlay", "chart"))
    assert word not in dump_objects(objects(*EKS))


def test_a_step_sees_what_it_sees_on_kind_but_what_is_off_aws() -> None:
    assert step_variables("eks") == step_variables("overlay") - OFF_AWS


def test_a_step_is_told_where_the_environments_data_is() -> None:
    told = find_object("ConfigMap", "step-environment", "eks")["data"]
    chosen = staging()
    assert told["S3_BUCKET"] == chosen.bucket
    assert told["GIT_URL"] == chosen.datasets
    assert told["DATASET_PATH"] == chosen.dataset
    assert {told["AWS_REGION"], told["AWS_DEFAULT_REGION"]} == {chosen.region}
    assert told["AWS_EC2_METADATA_DISABLED"] == "true"  # no pod may use the role of its node


def test_the_bases_objects_are_all_there() -> None:
    def list_names(*rendered: str) -> set[str]:
        return {difference.object_name(o) for o in objects(*rendered)}

    assert list_names("base") <= list_names("eks")


# --- Volumes --------------------------------------------------------------------------------------


def find_storage_class(claim: str) -> Object:
    """Return a claim's StorageClass, which must be one of the shared file system."""
    wanted = find_object("PersistentVolumeClaim", claim, "eks")["spec"]
    assert wanted["accessModes"] == ["ReadWriteMany"]
    found = find_object("StorageClass", wanted["storageClassName"], "eks")
    assert found["provisioner"] == "efs.csi.aws.com"
    assert found["parameters"]["provisioningMode"] == "efs-ap"
    assert found["parameters"]["fileSystemId"] == rendering.AwsOutputs().filesystem
    return found


def list_pods_mounting(found: Iterable[Pod], claim: str) -> list[Pod]:
    """List the pods that mount a claim."""
    return [
        pod
        for pod in found
        for volume in pod.spec.get("volumes") or []
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim
    ]


@pytest.mark.parametrize(
    ("claim", "count"), [("airflow-shared-pvc", 3), ("airflow-logs", 5)], ids=str
)
def test_a_shared_volume_belongs_to_who_mounts_it(claim: str, count: int) -> None:
    given = find_storage_class(claim)["parameters"]
    owner = (int(given["uid"]), int(given["gid"]))
    users = {
        (pod.spec["securityContext"]["runAsUser"], pod.spec["securityContext"]["runAsGroup"])
        for pod in list_pods_mounting(pods(*EKS), claim)
    }
    assert len(list_pods_mounting(pods(*EKS), claim)) == count
    assert users == {owner}
    assert given["directoryPerms"] == "0770"


def test_two_volumes_are_two_folders() -> None:
    paths = [
        find_storage_class(claim)["parameters"]["basePath"]
        for claim in ("airflow-shared-pvc", "airflow-logs")
    ]
    assert len(set(paths)) == 2


def test_the_database_is_on_an_encrypted_disk_where_its_pod_is() -> None:
    (claim,) = find_object("StatefulSet", "postgresql", "eks")["spec"]["volumeClaimTemplates"]
    disk = find_object("StorageClass", claim["spec"]["storageClassName"], "eks")
    assert disk["provisioner"] == "ebs.csi.aws.com"
    assert disk["parameters"]["encrypted"] == "true"
    assert disk["parameters"]["type"] == "gp3"
    assert disk["volumeBindingMode"] == "WaitForFirstConsumer"
    given = disk["parameters"].items()
    tags = dict(text.split("=") for key, text in given if key.startswith("tagSpecification_"))
    assert tags == staging().tags


def test_no_claim_is_of_a_class_that_is_not_there() -> None:
    there = {o["metadata"]["name"] for o in objects_of_kind("StorageClass", "eks")}
    used = {o["spec"]["storageClassName"] for o in objects_of_kind("PersistentVolumeClaim", "eks")}
    assert used < there


# --- Nodes ----------------------------------------------------------------------------------------


def test_everything_runs_on_nodes_that_are_not_taken_away() -> None:
    groups = read_node_groups()
    assert not groups["airflow"].get("spot")
    for pod in pods(*EKS):
        assert [role for role, group in groups.items() if can_run_on(pod, group)] == ["airflow"], (
            pod.name
        )


# --- Connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", NEEDED, ids=str)
def test_who_needs_a_place_reaches_it(way: tuple[Any, ...]) -> None:
    assert can_connect(objects(*EKS), pods(*EKS), *way)


@pytest.mark.parametrize("way", REFUSED, ids=str)
def test_who_does_not_need_a_place_does_not_reach_it(way: tuple[Any, ...]) -> None:
    assert not can_connect(objects(*EKS), pods(*EKS), *way)


@pytest.mark.parametrize(
    ("policy", "path", "value", "way"),
    [
        ("step-https", "egress.0.to.0.ipBlock.cidr", "10.0.0.0/8", ("step", "s3", 443)),
        ("step-identity", "egress.0.ports.0.port", 81, ("step", "agent", 80)),
        (
            "airflow-database",
            "podSelector.matchLabels",
            {"a": "b"},
            ("scheduler", "postgresql", 5432),
        ),
    ],
)
def test_a_wrong_policy_is_found(
    policy: str, path: str, value: object, way: tuple[str, str, int]
) -> None:
    found = copy.deepcopy(list(objects(*EKS)))
    assert can_connect(found, pods(*EKS), *way)
    wrong = next(
        o for o in found if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == policy
    )
    set_value(wrong["spec"], path, value)
    assert not can_connect(found, pods(*EKS), *way)


def test_metadata_that_nothing_leaves_out_is_reached() -> None:
    found = copy.deepcopy(list(objects(*EKS)))
    wrong = next(o for o in found if o["metadata"]["name"] == "step-https")
    del wrong["spec"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert can_connect(found, pods(*EKS), "step", "metadata", 443)


# --- Airflow --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "branch"), [("staging", "main"), ("production", "release")])
def test_an_environment_follows_one_branch(name: str, branch: str) -> None:
    need_renderers()
    chosen = environment.load(name)
    with temporary_home() as config:
        found = rendering.render_eks(replace(chosen, options=()), config, config.run)
    (bundle,) = json.loads(
        parse_airflow_config(manifests.parse_objects(found.chart))["dag_processor"][
            "dag_bundle_config_list"
        ]
    )
    assert bundle["name"] == "pipelines"  # its DAGs have no prefix: see steps.py
    assert bundle["kwargs"]["tracking_ref"] == chosen.branch == branch
    assert bundle["kwargs"]["refresh_interval"] == 10
    connection = f"AIRFLOW_CONN_{bundle['kwargs']['git_conn_id'].upper()}"
    asked = [env["name"] for p in pods("eks-chart") for c in p.containers for env in c["env"]]
    assert connection in asked


def test_no_pod_waits_for_a_secret_that_only_kind_has() -> None:
    found = {name for pod in pods(*EKS) for name in find_secrets(pod.spec)}
    assert found == {
        "airflow-api-secret-key",
        "airflow-fernet-key",
        "airflow-jwt-secret",
        "airflow-login",
        "airflow-metadata",
        "git-credentials",
        "pipelines-credentials",
        "postgresql",
    }


def test_every_configmap_that_a_pod_asks_for_is_there() -> None:
    there = {o["metadata"]["name"] for o in objects_of_kind("ConfigMap", *EKS)}
    asked = {
        source["configMapRef"]["name"]
        for pod in pods(*EKS)
        for container in pod.containers
        for source in container.get("envFrom") or []
    }
    assert asked == {"step-environment", "airflow-environment"}
    assert asked <= there


def test_a_quota_leaves_room_for_everything_at_work() -> None:
    """Every option is on, a component is being replaced, and as many tasks run as may."""
    hard = find_object("ResourceQuota", "airflow", "eks")["spec"]["hard"]
    # Of two schedulers.
    at_a_time = 2 * int(parse_airflow_config(eks_objects(*ALL))["core"]["parallelism"])
    inside = [pod for pod in eks_pods(*ALL) if pod.namespace == "airflow"]
    stays = [pod for pod in inside if not is_task(pod)]
    tasks = [pod for pod in inside if is_task(pod)]
    for side in ("limits", "requests"):
        most = max(sum_resource([pod], side, "memory") for pod in tasks)
        wanted = 1.5 * sum_resource(stays, side, "memory") + at_a_time * most
        assert 0 < wanted <= parse_quantity(hard[f"{side}.memory"]), (side, wanted / 2**30)
    assert 1.5 * sum(pod.count for pod in stays) + at_a_time <= int(hard["pods"])


# --- Compared with kind ---------------------------------------------------------------------------


def test_both_have_their_database_from_one_folder() -> None:
    """So the database on EKS is the one that kind has proved."""
    folders = [Path("manifests", "overlays", name) for name in ("kind", "eks")]
    for folder in folders:
        text = (KIT / folder / "kustomization.yaml").read_text("utf-8")
        assert "../../stores" in yaml.safe_load(text)["resources"]
    ours, there = (find_object("Service", "postgresql", name) for name in ("overlay", "eks"))
    assert there["spec"] == ours["spec"]


def test_every_object_says_whose_it_is() -> None:
    owners = {o["metadata"]["labels"].get("mlops-lab/environment") for o in objects("eks")}
    assert owners == {staging().name}


def test_the_database_is_the_locks_own_image() -> None:
    (container,) = find_object("StatefulSet", "postgresql", "eks")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == f"postgres@{locked_images()['postgresql'].digest}"
