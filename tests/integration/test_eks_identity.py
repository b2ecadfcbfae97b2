"""Roles and associations, on moto's IAM and EKS: who gets which, and what each allows.

moto enforces the actions and resources of a policy, but not its conditions: of those, these tests
check the text, and what the steps' own code asks S3 for.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.exceptions import ClientError
from moto.eks.responses import EKSResponse

from eks import bucket, identity
from eks.aws import wait_until_settled
from eks.environment import CLUSTER_TAG, TAG
from eks.site import Site, tag_list
from lab.errors import CloudBusy, NameTaken
from tests.support import cloud as clouds
from tests.support.cloud import Cloud, kill_at_each_call, run_python

CLUSTER = "mlops-lab-staging"
STEPS, AIRFLOW, PAGES = f"{CLUSTER}-steps", f"{CLUSTER}-airflow", f"{CLUSTER}-pages"
REMOTE_LOGS = ("remote-logs",)
BUCKET = "lab-staging"
ARN = f"arn:aws:eks:{clouds.REGION}:{clouds.ACCOUNT}:cluster/{CLUSTER}"


@pytest.fixture(autouse=True)
def _cluster(cloud: Cloud, site: Site) -> None:
    cloud.make_cluster(site)


def read_associations(cloud: Cloud, cluster: str = CLUSTER) -> dict[str, str]:
    """Return the role that each service account's pods get."""
    eks = cloud.client("eks")
    listed = eks.list_pod_identity_associations(clusterName=cluster)["associations"]
    found = {}
    for entry in listed:
        which = {"clusterName": cluster, "associationId": entry["associationId"]}
        said = eks.describe_pod_identity_association(**which)["association"]
        assert said["tags"] == {TAG: "staging", CLUSTER_TAG: cluster}
        found[f"{said['namespace']}/{said['serviceAccount']}"] = said["roleArn"].split("/")[-1]
    return found


def read_roles(cloud: Cloud, cluster: str = CLUSTER) -> dict[str, Any]:
    """Return, for each role of ours, whom it trusts and which policies it has."""
    iam = cloud.client("iam")
    found = {}
    for role in iam.list_roles()["Roles"]:
        if role["RoleName"].startswith(cluster):
            said = iam.list_attached_role_policies(RoleName=role["RoleName"])
            attached = sorted(policy["PolicyName"] for policy in said["AttachedPolicies"])
            found[role["RoleName"]] = (role["AssumeRolePolicyDocument"], attached)
    return found


def read_policies(cloud: Cloud) -> dict[str, Any]:
    """Return the document of each policy of ours."""
    iam = cloud.client("iam")
    found = {}
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        which = {"PolicyArn": policy["Arn"], "VersionId": policy["DefaultVersionId"]}
        found[policy["PolicyName"]] = iam.get_policy_version(**which)["PolicyVersion"]["Document"]
    return found


def read_everything(cloud: Cloud) -> Any:
    return read_associations(cloud), read_roles(cloud), read_policies(cloud)


def list_resources(cloud: Cloud) -> set[tuple[str, str]]:
    """List all that is ours, as the ledger names it: a role and its policy have one name."""
    found = {"role": read_roles(cloud), "policy": read_policies(cloud)}
    found["association"] = {f"{CLUSTER}/{account}": 0 for account in read_associations(cloud)}
    return {(kind, name) for kind, names in found.items() for name in names}


ALL = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
NOTHING: Any = ({}, {}, {})


# --- What is made -------------------------------------------------------------------------------


def test_each_service_account_has_its_role(cloud: Cloud, site: Site) -> None:
    identity.make(site)
    assert read_associations(cloud) == {
        "airflow/airflow-step": STEPS,
        "airflow/airflow": AIRFLOW,
        "airflow/airflow-scheduler": AIRFLOW,
        "airflow/airflow-triggerer": AIRFLOW,
        "airflow/airflow-worker": AIRFLOW,
    }
    assert set(identity.service_accounts(site.environment)) == {
        name.removeprefix("airflow/") for name in read_associations(cloud)
    }


def test_a_role_trusts_these_pods_of_this_cluster(cloud: Cloud, site: Site) -> None:
    identity.make(site)
    trust, attached = read_roles(cloud)[STEPS]
    assert attached == [STEPS]
    (statement,) = trust["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert statement["Condition"] == {
        "StringEquals": {
            "aws:SourceAccount": clouds.ACCOUNT,
            "aws:RequestTag/eks-cluster-arn": ARN,
            "aws:RequestTag/kubernetes-namespace": "airflow",
            "aws:RequestTag/kubernetes-service-account": ["airflow-step"],
        }
    }
    trust, _ = read_roles(cloud)[AIRFLOW]
    wanted = trust["Statement"][0]["Condition"]["StringEquals"]
    assert wanted["aws:RequestTag/kubernetes-service-account"] == [
        "airflow",
        "airflow-scheduler",
        "airflow-triggerer",
        "airflow-worker",
    ]


def test_the_option_for_logs_and_its_end(cloud: Cloud, site: Site) -> None:
    identity.make(site)
    without, recorded = read_everything(cloud), list_recorded(site)
    chosen = cloud.site(options=REMOTE_LOGS)
    identity.make(chosen)
    assert read_associations(cloud) == {**without[0], "airflow/airflow-api-server": PAGES}
    assert set(identity.service_accounts(chosen.environment)) == {
        name.removeprefix("airflow/") for name in read_associations(cloud)
    }
    assert read_roles(cloud)[AIRFLOW] == (without[1][AIRFLOW][0], [AIRFLOW, f"{CLUSTER}-logs"])
    trust, attached = read_roles(cloud)[PAGES]
    assert attached == [PAGES]
    wanted = trust["Statement"][0]["Condition"]["StringEquals"]
    assert wanted["aws:RequestTag/kubernetes-service-account"] == ["airflow-api-server"]
    assert list_recorded(site) - recorded == {
        ("role", PAGES),
        ("policy", PAGES),
        ("policy", f"{CLUSTER}-logs"),
        ("association", f"{CLUSTER}/airflow/airflow-api-server"),
    }
    identity.make(site)
    assert read_everything(cloud) == without
    assert list_recorded(site) == recorded


def list_recorded(site: Site) -> set[tuple[str, str]]:
    """List what the ledger has."""
    return {(entry.kind, entry.name) for entry in site.ledger.entries()}


def test_the_options_end_is_seen_without_the_ledger(cloud: Cloud, site: Site) -> None:
    """Another checkout had created it."""
    identity.make(site)
    without = read_everything(cloud)
    identity.make(cloud.site(options=REMOTE_LOGS))
    site.ledger.path.unlink()
    identity.make(site)
    assert read_everything(cloud) == without


def test_a_plan_names_each_role_and_whose_it_is(cloud: Cloud, site: Site) -> None:
    with_logs = cloud.site(options=REMOTE_LOGS).environment
    assert [row.name for row in identity.plan(site.environment)] == [STEPS, AIRFLOW]
    assert [row.name for row in identity.plan(with_logs)] == [STEPS, AIRFLOW, PAGES]
    assert identity.plan(with_logs)[-1].what == "Pod Identity of airflow-api-server"


def see_roles_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have EKS refuse a new role twice before it sees it."""
    looks = iter(range(100))
    original = EKSResponse.refuse_unknown_role

    def refuse_at_first(answers: Any, role: str) -> None:
        original(answers, role if next(looks) > 1 else "arn:aws:iam::1:role/not-seen-yet")

    monkeypatch.setattr(EKSResponse, "refuse_unknown_role", refuse_at_first)
    fast = functools.partial(wait_until_settled, interval=0.01)
    monkeypatch.setattr(identity, "wait_until_settled", fast)


def test_the_pages_had_airflows_role_once(
    cloud: Cloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version of the kit made it; EKS sees the new role only a while later."""
    chosen = cloud.site(options=REMOTE_LOGS)
    identity.make(site)
    identity.associate_account(chosen, identity.roles(chosen.environment)[1], "airflow-api-server")
    assert read_associations(cloud)["airflow/airflow-api-server"] == AIRFLOW
    see_roles_late(monkeypatch)
    identity.make(chosen)
    assert read_associations(cloud)["airflow/airflow-api-server"] == PAGES


def test_another_cluster_in_the_file_costs_neither_its_identities(cloud: Cloud, site: Site) -> None:
    """Each cluster keeps its own until `remove`, which finds them by the ledger."""
    other = "mlops-lab-next"
    identity.make(cloud.site(options=REMOTE_LOGS))
    before = read_everything(cloud)
    moved = cloud.site(cluster=other)
    cloud.make_cluster(moved)
    identity.make(moved)
    assert read_everything(cloud)[:2] == before[:2]
    assert before[2].items() <= read_policies(cloud).items()
    assert len(read_associations(cloud, other)) == 5
    there = {*read_policies(cloud), *read_roles(cloud), *read_roles(cloud, other)}
    assert there <= {name for _, name in list_recorded(site)}
    identity.remove(moved)
    assert read_everything(cloud) == NOTHING
    assert (read_associations(cloud, other), read_roles(cloud, other)) == ({}, {})
    assert site.ledger.entries() == []


def test_what_somebody_changed_is_put_right(cloud: Cloud, site: Site) -> None:
    identity.make(site)
    before = read_everything(cloud)
    iam, eks = cloud.client("iam"), cloud.client("eks")
    arn = identity.policy_arn(site, STEPS)
    for _ in range(4):  # as many as IAM keeps
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(ALL), SetAsDefault=True)
    iam.detach_role_policy(RoleName=STEPS, PolicyArn=arn)
    iam.attach_role_policy(RoleName=STEPS, PolicyArn=identity.policy_arn(site, AIRFLOW))
    whoever = {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}
    anybody = {**ALL, "Statement": [whoever]}
    iam.update_assume_role_policy(RoleName=AIRFLOW, PolicyDocument=json.dumps(anybody))
    (listed,) = eks.list_pod_identity_associations(
        clusterName=CLUSTER, serviceAccount="airflow-step"
    )["associations"]
    eks.update_pod_identity_association(
        clusterName=CLUSTER,
        associationId=listed["associationId"],
        roleArn=identity.role_arn(site, AIRFLOW),
    )
    identity.make(site)
    assert read_everything(cloud) == before
    identity.make(site)
    assert read_everything(cloud) == before


def test_a_role_that_eks_does_not_see_yet(
    cloud: Cloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other services see a new role of IAM only a while later."""
    original = EKSResponse.refuse_unknown_role
    see_roles_late(monkeypatch)
    identity.make(site)
    assert len(read_associations(cloud)) == 5
    monkeypatch.setattr(EKSResponse, "refuse_unknown_role", lambda s, _: original(s, "x"))
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.05)
    identity.remove(site)
    with pytest.raises(CloudBusy, match=r"role mlops-lab-staging-steps .* does not exist"):
        identity.make(site)


# --- What a role allows -------------------------------------------------------------------------

MAY = {
    STEPS: [
        ("get_object", BUCKET, "store/files/md5/ab/cdef"),
        ("put_object", BUCKET, "store/files/md5/ab/new"),
        ("create_multipart_upload", BUCKET, "store/files/md5/ab/large"),
        ("get_object", BUCKET, "results/etl_workflow/employee_summary.json"),
        ("put_object", BUCKET, "results/etl_workflow/employee_summary.json"),
    ],
    AIRFLOW: [
        ("get_object", BUCKET, "landing/sales/monday.csv"),
        ("get_object", BUCKET, "store/files/md5/ab/cdef"),
        ("put_object", BUCKET, "results/sales_pipeline/warehouse.csv"),
        ("put_object", BUCKET, "notifications/critical_pipeline/x.json"),
        ("delete_object", BUCKET, "results/sales_pipeline/runs/old/extract.json"),
        ("put_object", BUCKET, "logs/dag_id=sample_etl/attempt=1.log"),
        ("get_object", BUCKET, "logs/dag_id=sample_etl/attempt=1.log"),
    ],
    PAGES: [("get_object", BUCKET, "logs/dag_id=sample_etl/attempt=1.log")],
}
MAY_NOT = {
    STEPS: [
        ("delete_object", BUCKET, "store/files/md5/ab/cdef"),
        ("delete_object", BUCKET, "results/sales_pipeline/runs/old/extract.json"),
        ("put_object", BUCKET, "landing/sales/monday.csv"),
        ("get_object", BUCKET, "landing/sales/monday.csv"),
        ("put_object", BUCKET, "notifications/critical_pipeline/x.json"),
        ("get_object", "somebody-else-s", "store/files/md5/ab/cdef"),
        ("put_object", "somebody-else-s", "store/x"),
    ],
    AIRFLOW: [
        ("put_object", BUCKET, "store/files/md5/ab/new"),
        ("delete_object", BUCKET, "store/files/md5/ab/cdef"),
        ("delete_object", BUCKET, "results/sales_pipeline/warehouse.csv"),
        ("delete_object", BUCKET, "landing/sales/monday.csv"),
        ("put_object", BUCKET, "landing/sales/monday.csv"),
        ("delete_object", BUCKET, "logs/dag_id=sample_etl/attempt=1.log"),
        ("get_object", "somebody-else-s", "results/x"),
    ],
    PAGES: [
        ("put_object", BUCKET, "logs/dag_id=sample_etl/attempt=1.log"),
        ("delete_object", BUCKET, "logs/dag_id=sample_etl/attempt=1.log"),
        ("get_object", BUCKET, "landing/sales/monday.csv"),
        ("get_object", BUCKET, "store/files/md5/ab/cdef"),
        ("get_object", BUCKET, "results/etl_workflow/employee_summary.json"),
        ("put_object", BUCKET, "results/sales_pipeline/warehouse.csv"),
        ("put_object", BUCKET, "notifications/critical_pipeline/x.json"),
        ("delete_object", BUCKET, "results/sales_pipeline/runs/old/extract.json"),
        ("get_object", "somebody-else-s", "logs/dag_id=sample_etl/attempt=1.log"),
    ],
}
OBJECTS = sorted({key for tries in (*MAY.values(), *MAY_NOT.values()) for _, _, key in tries})


@pytest.fixture
def filled(cloud: Cloud) -> Site:
    """Return a site with all roles, and two buckets with an object under each key; one is ours."""
    site = cloud.site(options=REMOTE_LOGS)
    bucket.make(site)
    identity.make(site)
    s3 = cloud.client("s3")
    where = {"LocationConstraint": clouds.REGION}
    s3.create_bucket(Bucket="somebody-else-s", CreateBucketConfiguration=where)
    for name in (BUCKET, "somebody-else-s"):
        for key in OBJECTS:
            s3.put_object(Bucket=name, Key=key, Body=b"x")
    return site


def try_operation(s3: Any, operation: str, name: str, key: str) -> str:
    """Return the code with which S3 refuses, or "done"."""
    try:
        getattr(s3, operation)(Bucket=name, Key=key)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "done"


def test_without_the_option_airflow_has_nothing_to_do_with_logs(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    identity.make(site)
    cloud.client("s3").put_object(Bucket=BUCKET, Key="logs/x", Body=b"x")
    s3 = cloud.clients_as(AIRFLOW)("s3")
    assert try_operation(s3, "get_object", BUCKET, "logs/x") == "AccessDenied"
    assert try_operation(s3, "put_object", BUCKET, "logs/x") == "AccessDenied"


@pytest.mark.parametrize("role", [STEPS, AIRFLOW, PAGES])
def test_a_pod_may_do_what_its_code_does_and_no_more(cloud: Cloud, filled: Site, role: str) -> None:
    s3 = cloud.clients_as(role)("s3")
    allowed = {tried: try_operation(s3, *tried) for tried in MAY[role]}
    assert set(allowed.values()) == {"done"}, allowed
    refused = {tried: try_operation(s3, *tried) for tried in MAY_NOT[role]}
    assert set(refused.values()) == {"AccessDenied"}, refused


# Calls that no pod's code makes, by what they would do.
ELSE: dict[str, Callable[[Any], object]] = {
    "drop the bucket's policy": lambda c: c("s3").delete_bucket_policy(Bucket=BUCKET),
    "keep no versions": lambda c: c("s3").put_bucket_versioning(
        Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"}
    ),
    "list versions": lambda c: c("s3").list_object_versions(Bucket=BUCKET),
    "become an administrator": lambda c: c("iam").attach_role_policy(
        RoleName=STEPS, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    ),
    "look at images": lambda c: c("ecr").describe_repositories(),
    "look at machines": lambda c: c("ec2").describe_instances(),
}


@pytest.mark.parametrize("role", [STEPS, AIRFLOW, PAGES])
def test_a_pod_may_do_nothing_else_in_aws(cloud: Cloud, filled: Site, role: str) -> None:
    client = cloud.clients_as(role)
    for what, call in ELSE.items():
        with pytest.raises(
            ClientError, match=r"AccessDenied|UnauthorizedOperation|Forbidden"
        ) as no:
            call(client)
        assert no.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, what


REAL_STEPS = """
import hashlib, sys
from pathlib import Path
from dataset_steps.remote import Remote
from dataset_steps.content import Content
from dataset_steps.pointer import Pointer
folder, content = Path(sys.argv[1]), sys.argv[2].encode()
made = folder / "made.csv"
made.write_bytes(content)
pointer = Pointer(hashlib.md5(content).hexdigest(), len(content))
remote = Remote(folder / "clone")
assert not remote.is_stored(pointer)
remote.store(Content(pointer), made)
(folder / "clone" / "datasets" / "x.csv.dvc").write_text(
    f"outs:\\n- md5: {pointer.md5}\\n  size: {pointer.size}\\n  hash: md5\\n  path: x.csv\\n"
)
Remote(folder / "clone").download(pointer, "datasets/x.csv", folder / "got.csv")
assert (folder / "got.csv").read_bytes() == content
many = folder / "many"
many.mkdir()
for number in range(50):
    (many / str(number)).write_bytes(content + bytes([number]))
measured = remote.measure("datasets/many", many)
remote.store(measured, many)
assert remote.fast_store(measured.pointer).failures == 0, "obstore lives with the role, too"
"""


def test_the_steps_code_lives_with_the_steps_role(
    cloud: Cloud,
    filled: Site,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that DVC and boto3 ask for in a step is allowed, and each prefix that they list."""
    caplog.set_level(logging.INFO, "werkzeug")
    clone = tmp_path / "clone"
    (clone / ".dvc").mkdir(parents=True)
    (clone / "datasets").mkdir()
    (clone / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    remote = s3\n    analytics = false\n"
        f"['remote \"s3\"']\n    url = s3://{BUCKET}/store\n"
    )
    drop_conditions(cloud, filled, "steps")
    cloud.clients_as(STEPS)
    monkeypatch.setenv("AWS_DEFAULT_REGION", clouds.REGION)
    caplog.clear()
    done = run_python(REAL_STEPS, str(tmp_path), "a,b\n1,2\n")
    assert done.returncode == 0, done.stderr
    asked = [record.getMessage() for record in caplog.records]
    assert any(f"PUT /{BUCKET}/store/files/md5/" in line for line in asked)
    listed = [unquote(p) for line in asked for p in re.findall(r"[?&]prefix=([^& ]*)", line)]
    patterns = list_prefixes(filled, "steps")
    assert all(any(fnmatch.fnmatch(p, q) for q in patterns) for p in listed), listed


def drop_conditions(cloud: Cloud, site: Site, policy: str) -> None:
    """Drop the conditions of a policy: moto refuses whatever has one."""
    text = identity.render_document(site, policy)
    for statement in text["Statement"]:
        statement.pop("Condition", None)
    cloud.client("iam").create_policy_version(
        PolicyArn=identity.policy_arn(site, f"{CLUSTER}-{policy}"),
        PolicyDocument=json.dumps(text),
        SetAsDefault=True,
    )


def list_prefixes(site: Site, policy: str) -> list[str]:
    """List the prefixes under which a policy allows listing."""
    for statement in identity.render_document(site, policy)["Statement"]:
        if statement["Action"] == "s3:ListBucket":
            found = statement["Condition"]["StringLikeIfExists"]["s3:prefix"]
            return [found] if isinstance(found, str) else list(found)
    return []


@pytest.mark.parametrize("policy", ["steps", "airflow", "logs", "pages"])
def test_one_lists_what_one_reads_and_nothing_else(site: Site, policy: str) -> None:
    read = {
        resource.partition(f"{BUCKET}/")[2]
        for statement in identity.render_document(site, policy)["Statement"]
        if "s3:GetObject" in statement["Action"]
        for resource in as_list(statement["Resource"])
    }
    assert set(list_prefixes(site, policy)) == read


def as_list(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else given


# --- Ownership and removal ----------------------------------------------------------------------


def test_somebody_elses_policy_role_and_association(cloud: Cloud, site: Site) -> None:
    iam, eks = cloud.client("iam"), cloud.client("eks")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = iam.create_role(RoleName=STEPS, AssumeRolePolicyDocument=trust)["Role"]
    eks.create_pod_identity_association(
        clusterName=CLUSTER, namespace="airflow", serviceAccount="airflow", roleArn=role["Arn"]
    )
    with pytest.raises(NameTaken, match=f"role {STEPS}"):
        identity.make(site)
    iam.delete_role(RoleName=STEPS)
    iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=trust)
    with pytest.raises(NameTaken, match="association mlops-lab-staging/airflow/airflow "):
        identity.make(site)
    identity.remove(site)
    assert site.ledger.entries() == []
    assert read_roles(cloud) == read_policies(cloud) == {}
    assert len(eks.list_pod_identity_associations(clusterName=CLUSTER)["associations"]) == 1


@pytest.mark.parametrize("service", ["iam", "eks"])
def test_what_another_lab_of_the_same_name_has(cloud: Cloud, site: Site, service: str) -> None:
    """Another checkout's `staging`, of another cluster: neither taken over nor removed."""
    iam, eks = cloud.client("iam"), cloud.client("eks")
    theirs = replace(site.environment, cluster="another")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    if service == "iam":
        iam.create_role(RoleName=STEPS, AssumeRolePolicyDocument=trust, Tags=tag_list(theirs))
        iam.create_policy(PolicyName=AIRFLOW, PolicyDocument=json.dumps(ALL), Tags=tag_list(theirs))
    else:
        role = iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=trust)["Role"]
        eks.create_pod_identity_association(
            clusterName=CLUSTER,
            namespace="airflow",
            serviceAccount="airflow-step",
            roleArn=role["Arn"],
            tags=theirs.tags,
        )
    with pytest.raises(NameTaken, match=f"{CLUSTER_TAG}={CLUSTER}"):
        identity.make(site)
    identity.remove(site)
    left = eks.list_pod_identity_associations(clusterName=CLUSTER)["associations"]
    assert (set(read_roles(cloud)), set(read_policies(cloud)), len(left)) == (
        ({STEPS}, {AIRFLOW}, 0) if service == "iam" else (set(), set(), 1)
    )


def test_all_goes_and_again(cloud: Cloud, site: Site) -> None:
    identity.make(cloud.site(options=REMOTE_LOGS))
    identity.remove(site)  # the option is off by now, but the ledger has its roles
    assert read_everything(cloud) == NOTHING
    assert site.ledger.entries() == []
    identity.remove(site)


@pytest.mark.parametrize("options", [(), REMOTE_LOGS])
def test_all_goes_without_the_ledger(cloud: Cloud, site: Site, options: tuple[str, ...]) -> None:
    """Whichever options the file has by then."""
    identity.make(cloud.site(options=options))
    site.ledger.path.unlink()
    identity.remove(site)
    assert read_everything(cloud) == NOTHING


def test_all_goes_when_the_cluster_went_first(cloud: Cloud, site: Site) -> None:
    identity.make(site)
    cloud.client("eks").delete_cluster(name=CLUSTER)
    identity.remove(site)
    assert read_roles(cloud) == read_policies(cloud) == {}
    assert site.ledger.entries() == []


@pytest.mark.sweep
def test_killed_at_any_call_it_is_completed_and_removed(cloud: Cloud, site: Site) -> None:
    identity.make(site)
    whole = read_everything(cloud)
    deaths = 0
    for number, event in kill_at_each_call(
        cloud, identity.make, lambda: cloud.make_cluster(cloud.site())
    ):
        after = cloud.site()
        recorded = {(entry.kind, entry.name) for entry in after.ledger.entries()}
        assert list_resources(cloud) <= recorded, f"unrecorded after {event} {number}"
        identity.make(after)
        assert read_everything(cloud) == whole
        identity.remove(after)
        assert read_everything(cloud) == NOTHING
        assert after.ledger.entries() == []
        deaths += 1
    assert deaths == 2 * (11 if cloud.every else 4)


@pytest.mark.sweep
def test_killed_at_any_call_a_removal_is_ended(cloud: Cloud) -> None:
    def make_cluster_and_roles() -> None:
        cloud.make_cluster(cloud.site())
        identity.make(cloud.site())

    deaths = 0
    for _ in kill_at_each_call(cloud, identity.remove, make_cluster_and_roles):
        identity.remove(cloud.site())
        assert read_everything(cloud) == NOTHING
        assert cloud.site().ledger.entries() == []
        deaths += 1
    assert deaths == 2 * (11 if cloud.every else 4)
