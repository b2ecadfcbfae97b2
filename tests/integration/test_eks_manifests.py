"""What EKS gets without any option: no key, its own volumes, the ways out that it needs.

That every object is valid and every container restricted, test_manifests.py asks of this rendering,
too; test_eks_options.py of each option.
"""

from __future__ import annotations

import configparser
import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks import difference, environment, rendering
from lab.cluster import images, manifests
from lab.config import TREE
from tests.integration.renderings import (
    POD_FILE,
    Object,
    Pod,
    home_of_a_lab,
    need_renderers,
    objects,
    of_kind,
    pods,
    promoted,
    promoted_pods,
    staging,
    the,
)
from tests.integration.test_manifests import (
    AIRFLOW,
    COMPONENTS,
    NAME_SERVER,
    OUTSIDE,
    Peer,
    change,
    is_task,
    permits,
    quantity,
    short,
    sum_of,
)
from tests.integration.test_values import KEYS, variables

EKS = ("eks", "eks-chart")
ALL = tuple(sorted(folder.name for folder in (TREE / environment.OPTIONS).iterdir()))
ADDRESSES = {
    "s3": "52.219.170.1",
    "github": "140.82.121.3",
    "agent": "169.254.170.23",
    "agent-6": "fd00:ec2::23",
    "metadata": "169.254.169.254",
    "metadata-6": "fd00:ec2::254",
    "in-the-vpc": "10.20.3.4",
    "rds": "10.20.30.40",
}
OFF_AWS = {
    "AWS_ENDPOINT_URL_S3",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
}


# --- No key ---------------------------------------------------------------------------------------


def words(found: Iterable[Object]) -> str:
    """All that these objects say, but for the plugins' code."""
    return json.dumps([o for o in found if o["metadata"]["name"] != "airflow-plugins"])


@pytest.mark.parametrize("word", [*sorted(KEYS), "s3-credentials", "AWS_ENDPOINT", "team-a"])
def test_nothing_speaks_of_keys_or_of_kinds_stand_ins(word: str) -> None:
    assert word in words(objects("overlay", "chart"))
    assert word not in words(objects(*EKS))


def test_a_step_sees_what_it_sees_on_kind_but_what_is_off_aws() -> None:
    assert variables("eks") == variables("overlay") - KEYS - OFF_AWS


def test_a_step_is_told_where_the_environments_data_is() -> None:
    told = the("ConfigMap", "step-environment", "eks")["data"]
    chosen = staging()
    assert told["S3_BUCKET"] == chosen.bucket
    assert told["GIT_URL"] == chosen.datasets
    assert told["DATASET_PATH"] == chosen.dataset
    assert {told["AWS_REGION"], told["AWS_DEFAULT_REGION"]} == {chosen.region}
    assert told["AWS_EC2_METADATA_DISABLED"] == "true"  # a node's role is nobody's who runs on it


def test_the_bases_objects_are_all_there() -> None:
    def names(*rendered: str) -> set[str]:
        return {difference.name_of(o) for o in objects(*rendered)}

    assert names("base") <= names("eks")


# --- Volumes --------------------------------------------------------------------------------------


def storage_class(claim: str) -> Object:
    wanted = the("PersistentVolumeClaim", claim, "eks")["spec"]
    assert wanted["accessModes"] == ["ReadWriteMany"]
    found = the("StorageClass", wanted["storageClassName"], "eks")
    assert found["provisioner"] == "efs.csi.aws.com"
    assert found["parameters"]["provisioningMode"] == "efs-ap"
    assert found["parameters"]["fileSystemId"] == rendering.Made().filesystem
    return found


def mounting(found: Iterable[Pod], claim: str) -> list[Pod]:
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
    given = storage_class(claim)["parameters"]
    owner = (int(given["uid"]), int(given["gid"]))
    users = {
        (pod.spec["securityContext"]["runAsUser"], pod.spec["securityContext"]["runAsGroup"])
        for pod in mounting(pods(*EKS), claim)
    }
    assert len(mounting(pods(*EKS), claim)) == count
    assert users == {owner}
    assert given["directoryPerms"] == "0770"


def test_two_volumes_are_two_folders() -> None:
    paths = [
        storage_class(claim)["parameters"]["basePath"]
        for claim in ("airflow-shared-pvc", "airflow-logs")
    ]
    assert len(set(paths)) == 2


def test_the_database_is_on_an_encrypted_disk_where_its_pod_is() -> None:
    (claim,) = the("StatefulSet", "postgresql", "eks")["spec"]["volumeClaimTemplates"]
    disk = the("StorageClass", claim["spec"]["storageClassName"], "eks")
    assert disk["provisioner"] == "ebs.csi.aws.com"
    assert disk["parameters"]["encrypted"] == "true"
    assert disk["parameters"]["type"] == "gp3"
    assert disk["volumeBindingMode"] == "WaitForFirstConsumer"
    given = disk["parameters"].items()
    tags = dict(text.split("=") for key, text in given if key.startswith("tagSpecification_"))
    assert tags == staging().tags


def test_no_claim_is_of_a_class_that_is_not_there() -> None:
    there = {o["metadata"]["name"] for o in of_kind("StorageClass", "eks")}
    used = {o["spec"]["storageClassName"] for o in of_kind("PersistentVolumeClaim", "eks")}
    assert used < there


# --- Nodes ----------------------------------------------------------------------------------------


def node_groups() -> dict[str, Object]:
    """The cluster's groups of nodes by the role that their label says."""
    text = (TREE / "eks" / "cluster.yaml").read_text("utf-8")
    found = yaml.safe_load(text)["managedNodeGroups"]
    return {group["labels"]["mlops-lab/role"]: group for group in found}


def fits(pod: Pod, group: Object) -> bool:
    """Whether a pod may run on this group's nodes."""
    known = pod.spec.get("tolerations") or []
    taints = group.get("taints") or []
    chosen = pod.spec.get("nodeSelector") or {}
    return chosen.items() <= group["labels"].items() and all(
        any(tolerates(one, taint) for one in known) for taint in taints
    )


def tolerates(toleration: Object, taint: Object) -> bool:
    return (
        toleration["key"] == taint["key"]
        and toleration.get("effect", taint["effect"]) == taint["effect"]
        and (toleration.get("operator") == "Exists" or toleration["value"] == taint["value"])
    )


def test_everything_runs_on_nodes_that_are_not_taken_away() -> None:
    groups = node_groups()
    assert not groups["airflow"].get("spot")
    for pod in pods(*EKS):
        assert [role for role, group in groups.items() if fits(pod, group)] == ["airflow"], pod.name


# --- Ways out -------------------------------------------------------------------------------------


def place(name: str, found: Iterable[Pod]) -> Peer:
    """A pod by its short name, or an address."""
    if name in ADDRESSES:
        return Peer("outside", {}, ADDRESSES[name])
    if name in {"names", "outside"}:
        return NAME_SERVER if name == "names" else OUTSIDE
    one = next(pod for pod in found if short(pod) == name)
    return Peer(one.namespace, dict(one.labels))


def reaches(rendered: Iterable[Object], found: Iterable[Pod], *way: Any) -> bool:
    """Whether the policies of a rendering let a pod open a connection."""
    one, other, number, *over = way
    policies = [o for o in rendered if o["kind"] == "NetworkPolicy"]
    source, target = place(one, found), place(other, found)
    protocol = over[0] if over else "TCP"
    return permits(policies, "egress", source, target, protocol, number) and permits(
        policies, "ingress", target, source, protocol, number
    )


STEPS = ("step", "model", "training")
OUT = ("scheduler", "worker", "triggerer", "dag-processor")
NEEDED = (
    *((name, where, 443) for name in (*STEPS, *OUT) for where in ("s3", "github")),
    *((name, where, 80) for name in (*STEPS, *OUT) for where in ("agent", "agent-6")),
    *((name, "postgresql", 5432) for name in AIRFLOW),
    *((name, "api-server", 8080) for name in COMPONENTS),
    *((name, "names", 53, "UDP") for name in ("step", *AIRFLOW)),
    ("scheduler", "in-the-vpc", 443),  # the Kubernetes API
)
REFUSED = (
    *((name, where, 443) for name in ("step", "triggerer") for where in ("metadata", "metadata-6")),
    *((name, "metadata", 80) for name in ("step", *COMPONENTS)),
    *((name, "github", number) for name in ("step", *COMPONENTS) for number in (22, 80)),
    ("api-server", "agent", 80),  # it has no business with the bucket
    ("step", "postgresql", 5432),
    ("step", "rds", 5432),
    ("scheduler", "rds", 5432),
    ("step", "api-server", 8080),
    ("step", "in-the-vpc", 8080),
    ("outside", "api-server", 8080),
    ("in-the-vpc", "api-server", 8080),
    ("outside", "postgresql", 5432),
    ("postgresql", "s3", 443),
    ("postgresql", "agent", 80),
    ("api-server", "scheduler", 8793),
)


@pytest.mark.parametrize("way", NEEDED, ids=str)
def test_who_needs_a_place_reaches_it(way: tuple[Any, ...]) -> None:
    assert reaches(objects(*EKS), pods(*EKS), *way)


@pytest.mark.parametrize("way", REFUSED, ids=str)
def test_who_does_not_need_a_place_does_not_reach_it(way: tuple[Any, ...]) -> None:
    assert not reaches(objects(*EKS), pods(*EKS), *way)


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
    assert reaches(found, pods(*EKS), *way)
    wrong = next(
        o for o in found if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == policy
    )
    change(wrong["spec"], path, value)
    assert not reaches(found, pods(*EKS), *way)


def test_metadata_that_nothing_leaves_out_is_reached() -> None:
    found = copy.deepcopy(list(objects(*EKS)))
    wrong = next(o for o in found if o["metadata"]["name"] == "step-https")
    del wrong["spec"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert reaches(found, pods(*EKS), "step", "metadata", 443)


# --- Airflow --------------------------------------------------------------------------------------


def configuration(found: Iterable[Object]) -> configparser.RawConfigParser:
    (held,) = (o for o in found if o["metadata"]["name"] == "airflow-config")
    parser = configparser.RawConfigParser()
    parser.read_string(held["data"]["airflow.cfg"])
    return parser


@pytest.mark.parametrize(("name", "branch"), [("staging", "main"), ("production", "release")])
def test_an_environment_follows_one_branch(name: str, branch: str) -> None:
    need_renderers()
    chosen = environment.load(name)
    with home_of_a_lab() as config:
        found = rendering.on_eks(replace(chosen, options=()), config, config.run)
    (bundle,) = json.loads(
        configuration(manifests.objects(found.chart))["dag_processor"]["dag_bundle_config_list"]
    )
    assert bundle["name"] == "pipelines"  # whose DAGs have no prefix: dags/steps.py
    assert bundle["kwargs"]["tracking_ref"] == chosen.branch == branch
    assert bundle["kwargs"]["refresh_interval"] == 10
    connection = f"AIRFLOW_CONN_{bundle['kwargs']['git_conn_id'].upper()}"
    asked = [env["name"] for p in pods("eks-chart") for c in p.containers for env in c["env"]]
    assert connection in asked


def test_no_pod_waits_for_a_secret_that_only_kind_has() -> None:
    found = {name for pod in pods(*EKS) for name in secrets_of(pod.spec)}
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


def secrets_of(part: object) -> Iterator[str]:
    """The Secrets without which a pod would not start."""
    if isinstance(part, list):
        for item in part:
            yield from secrets_of(item)
    if isinstance(part, dict):
        for key in ("secretKeyRef", "secretRef", "secret"):
            if isinstance(part.get(key), dict):
                yield part[key].get("name") or part[key]["secretName"]
        for key, value in part.items():
            yield from secrets_of(yaml.safe_load(value) if key == POD_FILE else value)


def test_every_configmap_that_a_pod_asks_for_is_there() -> None:
    there = {o["metadata"]["name"] for o in of_kind("ConfigMap", *EKS)}
    asked = {
        source["configMapRef"]["name"]
        for pod in pods(*EKS)
        for container in pod.containers
        for source in container.get("envFrom") or []
    }
    assert asked == {"step-environment", "airflow-environment"}
    assert asked <= there


def test_a_quota_leaves_room_for_everything_at_work() -> None:
    """With every option on, a component being replaced, and as many tasks as may run."""
    hard = the("ResourceQuota", "airflow", "eks")["spec"]["hard"]
    at_a_time = 2 * int(configuration(promoted(*ALL))["core"]["parallelism"])  # of two schedulers
    inside = [pod for pod in promoted_pods(*ALL) if pod.namespace == "airflow"]
    stays = [pod for pod in inside if not is_task(pod)]
    tasks = [pod for pod in inside if is_task(pod)]
    for side in ("limits", "requests"):
        most = max(sum_of([pod], side, "memory") for pod in tasks)
        wanted = 1.5 * sum_of(stays, side, "memory") + at_a_time * most
        assert 0 < wanted <= quantity(hard[f"{side}.memory"]), (side, wanted / 2**30)
    assert 1.5 * sum(pod.count for pod in stays) + at_a_time <= int(hard["pods"])


# --- Beside kind ----------------------------------------------------------------------------------


def test_both_have_their_database_from_one_folder() -> None:
    """So that the database on EKS is the one that kind has proved."""
    folders = [Path("manifests", "overlays", name) for name in ("kind", "eks")]
    for folder in folders:
        text = (TREE / folder / "kustomization.yaml").read_text("utf-8")
        assert "../../stores" in yaml.safe_load(text)["resources"]
    ours, there = (the("Service", "postgresql", name) for name in ("overlay", "eks"))
    assert there["spec"] == ours["spec"]


def test_every_object_says_whose_it_is() -> None:
    owners = {o["metadata"]["labels"].get("mlops-lab/environment") for o in objects("eks")}
    assert owners == {staging().name}


def test_the_database_is_the_locks_own_image() -> None:
    (container,) = the("StatefulSet", "postgresql", "eks")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"postgres@{images.locked()['postgresql'].digest}"
