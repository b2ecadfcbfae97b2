"""AWS refuses, as it does over the wire: each a clear error, and nothing is left unrecorded."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from eks import aws, bucket, filesystem, identity, machines, registry
from eks.aws import Aws
from eks.site import Site
from lab.errors import (
    AccountError,
    CloudBusy,
    LabError,
    MissingPermission,
    NameTaken,
    QuotaReached,
    RegionLacks,
)
from tests.support import cloud as clouds
from tests.support.cloud import Cloud

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
XML = "<ErrorResponse><Error><Code>{0}</Code><Message>{1}</Message></Error></ErrorResponse>"
S3_XML = "<Error><Code>{0}</Code><Message>{1}</Message></Error>"
EC2_XML = (
    "<Response><Errors><Error><Code>{0}</Code><Message>{1}</Message></Error></Errors></Response>"
)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between two attempts."""
    monkeypatch.setattr(aws, "PATIENCE", 0.5)
    monkeypatch.setattr(aws, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(aws, "LONGEST_PAUSE", 0.01)
    hasty = SimpleNamespace(sleep=lambda _: None, time=time.time)
    monkeypatch.setattr("botocore.endpoint.time", hasty)


class Body(io.BytesIO):
    def stream(self) -> Any:
        yield self.read()


def refuse_operation(
    client: Any, operation: str, code: str, message: str, status: int = 400
) -> list[int]:
    """Have AWS refuse this operation from now on, in the words of its protocol.

    Returns a list that grows by the status with each refusal.
    """
    asked: list[int] = []
    protocol = client.meta.service_model.metadata["protocol"]

    def refuse(request: Any, **_: object) -> AWSResponse | None:
        asked.append(status)
        headers = {"x-amzn-ErrorType": code, "x-amzn-RequestId": "1"}
        if protocol in ("json", "rest-json"):
            text = json.dumps({"__type": code, "message": message})
        else:
            form = {"ec2": EC2_XML, "rest-xml": S3_XML}.get(protocol, XML)
            text = form.format(code, message)
        return AWSResponse(request.url, status, HTTPHeaders.from_dict(headers), Body(text.encode()))

    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-send.{service}.{operation}", refuse)
    return asked


# --- Who we are ---------------------------------------------------------------------------------


def test_the_account_that_we_are_in(cloud: Cloud, site: Site) -> None:
    assert aws.whoami(site.aws) == clouds.ACCOUNT
    aws.check_account(site.aws, site.environment)


def test_another_account_is_not_touched(cloud: Cloud, site: Site) -> None:
    other = replace(site.environment, account="111122223333")
    with pytest.raises(AccountError, match=f"{clouds.ACCOUNT}.*staging is in 111122223333"):
        aws.check_account(site.aws, other)


def remove_credentials(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def remove_secret_key(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def set_unknown_profile(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")


def set_sso_profile(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Set a single sign-on profile that has no token yet, or no longer."""
    remove_credentials(monkeypatch, folder)
    config = folder / "config"
    config.write_text(
        "[sso-session corp]\nsso_start_url = https://corp.awsapps.com/start\n"
        "sso_region = eu-central-1\nsso_registration_scopes = sso:account:access\n"
        "[profile corp]\nsso_session = corp\nsso_account_id = 123456789012\n"
        "sso_role_name = Admin\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_PROFILE", "corp")


def set_failing_helper(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    remove_credentials(monkeypatch, folder)
    config = folder / "config"
    config.write_text("[default]\ncredential_process = /bin/false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))


@pytest.mark.parametrize(
    ("how", "fix"),
    [
        (remove_credentials, "aws sso login"),
        (remove_secret_key, "sign in"),
        (set_unknown_profile, "AWS_PROFILE"),
        (set_sso_profile, "aws sso login"),
        (set_failing_helper, "sign in again"),
    ],
)
def test_nobody_is_signed_in(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: Callable[[pytest.MonkeyPatch, Path], None],
    fix: str,
) -> None:
    how(monkeypatch, tmp_path)
    with pytest.raises(AccountError) as caught:
        aws.whoami(Aws(clouds.REGION))
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("service", "operation", "code", "call"),
    [
        ("sts", "GetCallerIdentity", "ExpiredToken", lambda c: c.get_caller_identity()),
        ("ec2", "DescribeVpcs", "RequestExpired", lambda c: c.describe_vpcs()),
        ("s3", "ListBuckets", "ExpiredToken", lambda c: c.list_buckets()),
        ("ecr", "DescribeRepositories", "ExpiredTokenException",
         lambda c: c.describe_repositories()),
        ("eks", "ListClusters", "ExpiredTokenException", lambda c: c.list_clusters()),
        ("efs", "DescribeFileSystems", "ExpiredTokenException",
         lambda c: c.describe_file_systems()),
    ],
)  # fmt: skip
def test_a_session_that_has_expired(
    cloud: Cloud, service: str, operation: str, code: str, call: Callable[[Any], object]
) -> None:
    client = Aws(clouds.REGION).client(service)
    asked = refuse_operation(client, operation, code, "The security token included is expired", 403)
    with pytest.raises(AccountError, match=code) as caught:
        aws.call_aws("look", lambda: call(client))
    assert "sign in again" in caught.value.fix
    assert len(asked) == 1


# --- Permissions --------------------------------------------------------------------------------


def test_each_service_names_the_action_that_is_missing(cloud: Cloud) -> None:
    calls = {
        "sts": ("GetAccessKeyInfo", lambda c: c.get_access_key_info(AccessKeyId="A" * 16)),
        "iam": ("CreateRole", lambda c: c.create_role(RoleName="x", AssumeRolePolicyDocument="{}")),
        "ec2": ("DescribeVpcs", lambda c: c.describe_vpcs()),
        "ecr": ("CreateRepository", lambda c: c.create_repository(repositoryName="xy")),
        "eks": ("ListClusters", lambda c: c.list_clusters()),
        "efs": ("CreateFileSystem", lambda c: c.create_file_system()),
        "cloudformation": ("DescribeStacks", lambda c: c.describe_stacks()),
    }
    found = {}
    for service, (operation, call) in calls.items():
        client = Aws(clouds.REGION).client(service)
        code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
        refuse_operation(client, operation, code, "Access Denied", 403)
        with pytest.raises(MissingPermission) as caught:
            aws.call_aws("try", call, c=client)
        found[service] = caught.value.what.split(": ")[1].split(" is not")[0]
    assert found == {
        "sts": "sts:GetAccessKeyInfo",
        "iam": "iam:CreateRole",
        "ec2": "ec2:DescribeVpcs",
        "ecr": "ecr:CreateRepository",
        "eks": "eks:ListClusters",
        "efs": "elasticfilesystem:CreateFileSystem",
        "cloudformation": "cloudformation:DescribeStacks",
    }


@pytest.mark.parametrize(
    ("make", "remove", "denied"),
    [
        (bucket.make, lambda s: bucket.remove(s, "lab-staging"), "s3:PutLifecycleConfiguration"),
        (bucket.make, lambda s: bucket.remove(s, "lab-staging"), "s3:CreateBucket"),
        (identity.make, identity.remove, "iam:AttachRolePolicy"),
        (registry.make, registry.remove, "ecr:PutLifecyclePolicy"),
    ],
)
def test_without_a_permission_it_stops_recorded_and_goes_on_with_it(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Site], None],
    remove: Callable[[Site], None],
    denied: str,
) -> None:
    """moto enforces the person's policies, which allow all but one action."""
    monkeypatch.setattr(registry, "push_images", lambda _: {})
    site = cloud.site()
    cloud.make_cluster(site)
    rest = {"Effect": "Deny", "Action": denied, "Resource": "*"}
    with cloud.acting_as_user([EVERYTHING, rest]) as person:
        mine = replace(site, aws=person)
        with pytest.raises(MissingPermission, match=f"{denied} is not allowed"):
            make(mine)
        assert mine.ledger.entries()[-1].state == "intended"
    make(site)
    assert {entry.state for entry in site.ledger.entries()} == {"made"}
    remove(site)
    assert site.ledger.entries() == []


# --- Names, quotas, regions ---------------------------------------------------------------------

QUOTAS: list[tuple[str, str, str, Callable[[Site], None], Callable[[Site], None]]] = [
    ("s3", "CreateBucket", "TooManyBuckets", bucket.make,
     lambda s: bucket.remove(s, "lab-staging")),
    ("efs", "CreateFileSystem", "FileSystemLimitExceeded", filesystem.make, filesystem.remove),
    ("ec2", "CreateSecurityGroup", "SecurityGroupLimitExceeded", filesystem.make,
     filesystem.remove),
    ("iam", "CreateRole", "LimitExceeded", identity.make, identity.remove),
    ("eks", "CreatePodIdentityAssociation", "ResourceLimitExceededException", identity.make,
     identity.remove),
    ("ecr", "CreateRepository", "LimitExceededException", registry.make, registry.remove),
]  # fmt: skip


@pytest.mark.parametrize(("service", "operation", "code", "make", "remove"), QUOTAS)
def test_a_quota_is_reached(
    cloud: Cloud,
    service: str,
    operation: str,
    code: str,
    make: Callable[[Site], None],
    remove: Callable[[Site], None],
) -> None:
    """What was made before is in the ledger; what was not leaves it with the rest."""
    site = replace(cloud.site(), aws=Aws(clouds.REGION))
    cloud.make_cluster(site)
    refuse_operation(site.aws.client(service), operation, code, "You have reached the maximum", 400)
    with pytest.raises(QuotaReached, match=code) as caught:
        make(site)
    assert "Service Quotas" in caught.value.fix
    assert site.ledger.entries()[-1].state == "intended"
    remove(cloud.site())
    assert site.ledger.entries() == []


def test_somebody_was_faster(cloud: Cloud) -> None:
    """The name was free when we looked, and taken when we asked for it."""
    site = replace(cloud.site(), aws=Aws(clouds.REGION))
    s3 = site.aws.client("s3")
    refuse_operation(s3, "CreateBucket", "BucketAlreadyExists", "not available", 409)
    with pytest.raises(NameTaken, match="BucketAlreadyExists"):
        bucket.make(site)


def test_a_region_that_is_not_enabled(cloud: Cloud) -> None:
    found = Aws(clouds.REGION)
    code = "OptInRequired"
    refuse_operation(
        found.client("ec2"), "DescribeInstanceTypeOfferings", code, "not subscribed", 401
    )
    with pytest.raises(RegionLacks, match=code) as caught:
        machines.check_instance_types(found, ["m5.large"])
    assert "enable it" in caught.value.fix


def test_quotas_that_may_not_be_read_are_no_reason_to_stop(cloud: Cloud) -> None:
    """A person may make clusters without being allowed to read quotas; a line says so."""
    site = replace(cloud.site(), aws=Aws(clouds.REGION))
    client = site.aws.client("service-quotas")
    refuse_operation(client, "GetServiceQuota", "AccessDeniedException", "no", 400)
    (line,) = [said for said in machines.check_machines(site) if said.startswith("quotas")]
    assert "not looked at" in line
    assert "servicequotas:GetServiceQuota" in line


def test_a_region_that_nobody_knows() -> None:
    with pytest.raises(RegionLacks):
        _ = Aws("not a region").partition


# --- Throttling, and no answer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"),
    [("Throttling", 400), ("SlowDown", 503), ("InternalError", 500), ("RequestLimitExceeded", 503)],
)
def test_busy_for_a_while(cloud: Cloud, code: str, status: int) -> None:
    found = Aws(clouds.REGION)
    client = found.client("sts")
    asked: list[int] = []

    def refuse(request: Any, **_: object) -> AWSResponse | None:
        asked.append(1)
        text = XML.format(code, "Rate exceeded").encode()
        return (
            AWSResponse(request.url, status, HTTPHeaders(), Body(text)) if len(asked) < 6 else None
        )

    client.meta.events.register("before-send.sts.GetCallerIdentity", refuse)
    assert aws.whoami(found) == clouds.ACCOUNT
    assert len(asked) == 6


def test_busy_for_good_nothing_is_unrecorded(cloud: Cloud) -> None:
    site = replace(cloud.site(), aws=Aws(clouds.REGION))
    asked = refuse_operation(
        site.aws.client("s3"), "PutBucketEncryption", "SlowDown", "Reduce", 503
    )
    with pytest.raises(CloudBusy, match="SlowDown"):
        bucket.make(site)
    assert len(asked) > 3
    entry = site.ledger.find("bucket", "lab-staging")
    assert entry
    assert entry.state == "intended"
    bucket.make(cloud.site())
    bucket.remove(cloud.site(), "lab-staging")
    assert site.ledger.entries() == []


def test_nobody_answers(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CloudBusy, match="Could not connect"):
        aws.whoami(Aws(clouds.REGION))


def test_whats_between_us_and_aws_answers(cloud: Cloud) -> None:
    found = Aws(clouds.REGION)
    page = b"<html><body>Please sign in to the hotel's network</body>"

    def refuse(request: Any, **_: object) -> AWSResponse:
        return AWSResponse(request.url, 200, HTTPHeaders(), Body(page))

    found.client("sts").meta.events.register("before-send.sts.GetCallerIdentity", refuse)
    with pytest.raises(LabError, match="ask whose credentials"):
        aws.whoami(found)


def test_clients_give_up_and_try_again(cloud: Cloud) -> None:
    found = Aws(clouds.REGION)
    for service in ("s3", "sts", "eks"):
        config = found.client(service).meta.config
        assert config.connect_timeout <= 10
        assert config.read_timeout <= 60
        assert config.retries["mode"] == "standard"
        assert found.client(service) is found.client(service)
