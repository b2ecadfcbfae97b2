"""The policy of who applies: it allows each call that the code makes, and no other one of its own.

moto enforces actions, and resources of S3 alone; conditions it takes as fulfilled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from moto.iam.access_control import IAMRequestBase

from eks import (
    agent,
    aws,
    bucket,
    cluster,
    disks,
    filesystem,
    identity,
    kubeconfig,
    machines,
    registry,
    s3_endpoint,
)
from eks.aws import S3_ACTIONS
from eks.deployer import render_policy
from eks.site import Site
from lab.errors import MissingPermission
from tests.support.cloud import Cloud
from tests.support.pushes import Docker

MOST_LETTERS = 6144  # of a managed policy, without white space: IAM's quota
# Statements with more than our own calls: those of docker push, of eksctl, and of AWS itself.
OF_OTHERS = {
    "DockerPushesThere",
    "EksctlMakesTheCluster",
    "EksctlMakesItsRoles",
    "AwsMakesItsOwnRolesOnce",
}
# What no test of this file calls: another action needs it, or a failure, or a repository's data.
NOT_SEEN = {
    "cloudformation:DeleteStack",
    "cloudformation:DescribeStackEvents",
    "ec2:CreateNetworkInterface",
    "ec2:CreateTags",
    "ec2:ModifyVpcEndpoint",
    "ecr:TagResource",
    "eks:TagResource",
    "eks:UpdatePodIdentityAssociation",
    "elasticfilesystem:TagResource",
    "iam:CreatePolicyVersion",
    "iam:DeletePolicyVersion",
    "iam:PassRole",
    "iam:TagPolicy",
    "iam:TagRole",
    "iam:UpdateAssumeRolePolicy",
    "s3:DeleteObjectVersion",
    "s3:AbortMultipartUpload",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:PutObject",
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "CLUSTER_INTERVAL", 0.01)
    # moto computes another signature for EKS's calls than botocore does.
    monkeypatch.setattr(IAMRequestBase, "check_signature", lambda _: None)


@pytest.fixture
def asked() -> set[str]:
    """Return the set of the actions that the code has asked for."""
    return set()


@pytest.fixture
def person(
    cloud: Cloud, docker_here: Docker, asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Yield a site of somebody who may do what the policy allows, and nothing else."""
    folder = cloud.install_eksctl()
    site = cloud.site(options=("remote-logs",))
    with cloud.acting_as_user(statements_for_moto(site)) as allowed:
        keys = allowed.session.get_credentials()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_key)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        docker_here.cloud = replace(cloud, aws=allowed)

        def note(model: Any, **_: object) -> None:
            asked.add(aws.name_action(model.service_model.signing_name, model.name))

        allowed.session.events.register("before-call", note)
        assert (folder / "eksctl").exists()
        yield replace(site, aws=allowed)


def statements_for_moto(site: Site) -> list[dict[str, Any]]:
    """Return the policy's statements as moto can judge them.

    It knows no resources but S3's, calls some of S3's actions as their operations, and takes the
    deletion of many objects for one of the bucket.
    """
    whole = [f"arn:aws:s3:::{site.environment.bucket}{end}" for end in ("", "/*")]
    return [
        {**one, "Action": [*one["Action"], *list_operations(one["Action"])], "Resource": whole}
        if any(action.startswith("s3:") for action in one["Action"])
        else {**one, "Resource": "*"}
        for one in render_policy(site)["Statement"]
    ]


def list_operations(actions: list[str]) -> list[str]:
    """List the S3 operations that need one of the actions and have another name."""
    return [f"s3:{name}" for name, action in S3_ACTIONS.items() if f"s3:{action}" in actions]


def make_all(site: Site) -> None:
    """Do what an apply does in AWS, twice."""
    aws.check_account(site.aws, site.environment)
    machines.check_machines(site)
    for step in (bucket, registry, cluster, s3_endpoint, filesystem, identity):
        step.make(site)
        step.make(site)
    kubeconfig.write_kubeconfig(site)


def remove_all(site: Site) -> None:
    """Do what a destroy does in AWS, the bucket and what it holds included."""
    for step in (identity, filesystem, s3_endpoint, cluster, disks, registry):
        step.remove(site)
    bucket.remove(site, site.environment.bucket)


def replace_agent(site: Site) -> None:
    """Add and remove the agent, as where the cluster is somebody else's."""
    adopted = replace(site, environment=replace(site.environment, make_cluster=False))
    name = site.environment.cluster
    site.aws.client("eks").delete_addon(clusterName=name, addonName=agent.AGENT)
    agent.ensure_agent(adopted)
    identity.remove(site)  # else somebody needs it
    agent.remove_agent(adopted)


def list_actions(site: Site, *but: str) -> set[str]:
    """List the actions of the policy, but for these statements."""
    found = [s for s in render_policy(site)["Statement"] if s["Sid"] not in but]
    return {action for statement in found for action in statement["Action"]}


def test_it_is_enough_and_no_action_of_it_goes_unused(person: Site, asked: set[str]) -> None:
    make_all(person)
    replace_agent(person)
    person.aws.client("s3").put_object(Bucket=person.environment.bucket, Key="store/x", Body=b"x")
    person.aws.client("ec2").create_volume(
        AvailabilityZone=f"{person.aws.region}a",
        Size=1,
        TagSpecifications=[
            {
                "ResourceType": "volume",
                "Tags": [{"Key": k, "Value": v} for k, v in person.environment.tags.items()],
            }
        ],
    )
    remove_all(person)
    ours = list_actions(person, *OF_OTHERS)
    used = {form for form in ours for action in asked if fnmatchcase(action, form)}
    assert ours - used - NOT_SEEN == set()


@pytest.mark.parametrize("lacking", ["TheRegistry", "TheFileSystem", "PoliciesOfPods"])
def test_without_a_part_of_it_the_missing_action_is_named(
    cloud: Cloud, docker_here: Docker, lacking: str
) -> None:
    """Else nothing would be enforced here, and the tests above would say nothing."""
    cloud.install_eksctl()
    site = cloud.site()
    cloud.make_cluster(site)
    rest = [one for one in statements_for_moto(site) if one["Sid"] != lacking]
    steps = {"TheRegistry": registry, "TheFileSystem": filesystem, "PoliciesOfPods": identity}
    with cloud.acting_as_user(rest) as allowed, pytest.raises(MissingPermission) as refused:
        steps[lacking].make(replace(site, aws=allowed))
    assert "is not allowed" in refused.value.what


def test_iam_takes_it(site: Site) -> None:
    text = json.dumps(render_policy(site), separators=(",", ":"))
    assert len(text) < MOST_LETTERS
    assert "${" not in text
    assert {s["Effect"] for s in render_policy(site)["Statement"]} == {"Allow"}


def test_it_stays_within_the_environment(site: Site) -> None:
    """Every statement names this environment's things, or this region, or only reads."""
    for statement in render_policy(site)["Statement"]:
        if statement["Resource"] == "*":
            reads = all(
                action.partition(":")[2].startswith(("Describe", "Get"))
                for action in statement["Action"]
            )
            assert reads or statement["Condition"]["StringEquals"] == {
                "aws:RequestedRegion": site.environment.region
            }
        else:
            assert site.environment.account in str(statement["Resource"]) or (
                site.environment.bucket in str(statement["Resource"])
            )
