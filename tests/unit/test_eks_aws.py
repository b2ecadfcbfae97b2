"""Which error a failed call of AWS becomes: by its code, its text, or boto3's own exception."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from eks import aws
from lab.errors import (
    AccountError,
    CloudBusy,
    LabError,
    MissingPermission,
    NameTaken,
    PromotionError,
    QuotaReached,
    RegionLacks,
)

SECRET = "the-session-token"


def refusal(
    code: str, message: str = "", operation: str = "CreateX", status: int = 400, service: str = "s3"
) -> ClientError:
    said: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "Service": service},
    }
    return ClientError(said, operation)


def translate_error(error: Exception) -> LabError:
    with pytest.raises(LabError) as caught, aws.translating_aws_errors("make x"):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", AccountError),
        ("ExpiredTokenException", AccountError),
        ("RequestExpired", AccountError),
        ("InvalidClientTokenId", AccountError),
        ("UnrecognizedClientException", AccountError),
        ("InvalidAccessKeyId", AccountError),
        ("AuthFailure", AccountError),
        ("SignatureDoesNotMatch", AccountError),
        ("BucketAlreadyExists", NameTaken),
        ("BucketAlreadyOwnedByYou", NameTaken),
        ("EntityAlreadyExists", NameTaken),
        ("RepositoryAlreadyExistsException", NameTaken),
        ("FileSystemAlreadyExists", NameTaken),
        ("ResourceInUseException", NameTaken),
        ("InvalidGroup.Duplicate", NameTaken),
        ("LimitExceeded", QuotaReached),
        ("LimitExceededException", QuotaReached),
        ("ServiceQuotaExceededException", QuotaReached),
        ("VpcLimitExceeded", QuotaReached),
        ("SecurityGroupLimitExceeded", QuotaReached),
        ("TooManyBuckets", QuotaReached),
        ("ResourceLimitExceededException", QuotaReached),
        ("OptInRequired", RegionLacks),
        ("UnsupportedAvailabilityZoneException", RegionLacks),
        ("RegionDisabledException", RegionLacks),
        ("IllegalLocationConstraintException", RegionLacks),
        ("Throttling", CloudBusy),
        ("ThrottlingException", CloudBusy),
        ("RequestLimitExceeded", CloudBusy),
        ("SlowDown", CloudBusy),
        ("TooManyRequestsException", CloudBusy),
        ("ServiceUnavailable", CloudBusy),
        ("InternalError", CloudBusy),
        ("SomethingElse", PromotionError),
    ],
)
def test_what_a_code_means(code: str, kind: type[LabError]) -> None:
    found = translate_error(refusal(code))
    assert type(found) is kind
    assert code in found.what
    assert "make x" in found.what
    assert found.fix


@pytest.mark.parametrize("status", [500, 503, 504])
def test_a_failure_of_awss_own_without_a_known_code(status: int) -> None:
    assert type(translate_error(refusal("Oops", status=status))) is CloudBusy


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"])
def test_what_aws_quotes_of_a_request_is_not_shown(code: str) -> None:
    """The canonical request in it holds the session's token."""
    found = translate_error(refusal(code, f"should have been 'x-amz-security-token:{SECRET}'"))
    assert SECRET not in found.what + found.fix


EC2 = (
    "You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not"
    " authorized to perform: ec2:CreateSecurityGroup on resource: arn:aws:ec2:eu:1:vpc/v because"
    " no identity-based policy allows the ec2:CreateSecurityGroup action."
    " Encoded authorization failure message: 4GIOHlTkIaWHQD0Q0m6XSnuUMCm-abc"
)
SCP = (
    "User: arn:aws:sts::1:assumed-role/dev/me is not authorized to perform: s3:CreateBucket on"
    ' resource: "arn:aws:s3:::lab" with an explicit deny in a service control policy'
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal("UnauthorizedOperation", EC2, service="ec2"), "ec2:CreateSecurityGroup"),
        (refusal("AccessDenied", SCP), "s3:CreateBucket"),
        (refusal("AccessDeniedException", "no", "CreateFileSystem", service="elasticfilesystem"),
         "elasticfilesystem:CreateFileSystem"),
        (refusal("AccessDenied", "Access Denied", "PutBucketEncryption", 403),
         "s3:PutEncryptionConfiguration"),
        (refusal("403", "Forbidden", "HeadBucket", 403), "s3:ListBucket"),
        (refusal("AccessDenied", "Access Denied", "PutBucketTagging", 403), "s3:PutBucketTagging"),
    ],
)  # fmt: skip
def test_which_permission_is_missing(error: ClientError, said: str) -> None:
    found = translate_error(error)
    assert type(found) is MissingPermission
    assert f"{said} is not allowed" in found.what
    assert said in found.fix


def test_where_and_why_it_is_missing() -> None:
    found = translate_error(refusal("UnauthorizedOperation", EC2, service="ec2"))
    assert "on arn:aws:ec2:eu:1:vpc/v (because no identity-based policy" in found.what
    assert "4GIOHlTkIaWHQD0Q0m6XSnuUMCm" not in found.what
    assert (
        "explicit deny in a service control policy"
        in translate_error(refusal("AccessDenied", SCP)).what
    )


def test_actions_of_s3_that_are_called_otherwise_are_all_operations() -> None:
    import boto3

    model = boto3.Session().client("s3", region_name="eu-central-1").meta.service_model
    assert set(aws.S3_ACTIONS) <= set(model.operation_names)


URL = "https://ec2.{}.amazonaws.com/"
UNSENT: list[tuple[BotoCoreError, type[LabError], str]] = [
    (exceptions.NoCredentialsError(), AccountError, "aws sso login"),
    (exceptions.PartialCredentialsError(provider="env", cred_var="x"), AccountError, "sign in"),
    (exceptions.ProfileNotFound(profile="nobody"), AccountError, "AWS_PROFILE"),
    (exceptions.UnauthorizedSSOTokenError(), AccountError, "aws sso login"),
    (exceptions.SSOTokenLoadError(error_msg="x"), AccountError, "aws sso login"),
    (exceptions.TokenRetrievalError(provider="sso", error_msg="x"), AccountError, "sso login"),
    (exceptions.LoginRefreshRequired(), AccountError, "sign in again"),
    (
        exceptions.CredentialRetrievalError(provider="process", error_msg="x"),
        AccountError,
        "sign in again",
    ),
    (exceptions.NoRegionError(), RegionLacks, "region"),
    (exceptions.InvalidRegionError(region_name="x y"), RegionLacks, "region"),
    (
        exceptions.EndpointConnectionError(endpoint_url=URL.format("xx-nowhere-9")),
        RegionLacks,
        "region",
    ),
    (
        exceptions.EndpointConnectionError(endpoint_url=URL.format("eu-central-1")),
        CloudBusy,
        "again",
    ),
    (exceptions.ConnectTimeoutError(endpoint_url=URL.format("eu-central-1")), CloudBusy, "again"),
    (exceptions.ReadTimeoutError(endpoint_url=URL.format("eu-central-1")), CloudBusy, "again"),
    (exceptions.ConnectionClosedError(endpoint_url=URL.format("eu-central-1")), CloudBusy, "again"),
    (
        exceptions.ProxyConnectionError(proxy_url="http://proxy", error="x"),
        CloudBusy,
        "again",
    ),
    (exceptions.ParamValidationError(report="x"), PromotionError, "correct"),
]


@pytest.mark.parametrize(("error", "kind", "fix"), UNSENT)
def test_what_boto3_says_without_an_answer(
    error: BotoCoreError, kind: type[LabError], fix: str
) -> None:
    found = translate_error(error)
    assert type(found) is kind
    assert fix in found.fix


def test_what_answers_is_not_aws() -> None:
    from botocore.parsers import ResponseParserError

    found = translate_error(ResponseParserError(f"<html>{SECRET}"))
    assert type(found) is CloudBusy
    assert SECRET not in found.what


def test_our_own_errors_pass() -> None:
    error = NameTaken("taken", "choose another")
    with pytest.raises(NameTaken) as caught, aws.translating_aws_errors("make x"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "code",
    [
        "404",
        "NoSuchBucket",
        "NoSuchEntity",
        "NoSuchTagSet",
        "RepositoryNotFoundException",
        "ImageNotFoundException",
        "FileSystemNotFound",
        "InvalidGroup.NotFound",
        "ResourceNotFoundException",
    ],
)
def test_what_is_not_there_is_none(code: str) -> None:
    def ask(**_: object) -> None:
        raise refusal(code, status=404)

    assert aws.call_or_none("look", ask) is None
    with pytest.raises(PromotionError):
        aws.call_aws("look", ask)


# --- Patience -----------------------------------------------------------------------------------


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "PATIENCE", 0.2)
    monkeypatch.setattr(aws, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(aws, "LONGEST_PAUSE", 0.01)


@pytest.mark.usefixtures("_hasty")
def test_throttled_it_asks_again() -> None:
    answers = [refusal("Throttling"), refusal("SlowDown", status=503), "there"]

    def ask(**_: object) -> Any:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    assert aws.call_aws("look", ask) == "there"
    assert not answers


@pytest.mark.usefixtures("_hasty")
def test_throttled_for_good_it_gives_up() -> None:
    seen = []

    def ask(**_: object) -> None:
        seen.append(1)
        raise refusal("RequestLimitExceeded")

    with pytest.raises(CloudBusy, match="RequestLimitExceeded") as caught:
        aws.call_aws("look", ask)
    assert "goes on where it stopped" in caught.value.fix
    assert len(seen) > 2


@pytest.mark.usefixtures("_hasty")
def test_what_is_refused_is_not_asked_again() -> None:
    seen = []

    def ask(**_: object) -> None:
        seen.append(1)
        raise refusal("AccessDenied")

    with pytest.raises(MissingPermission):
        aws.call_aws("look", ask)
    assert len(seen) == 1


# --- Texts that quote AWS -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "You have requested more vCPU capacity than your current vCPU limit of 5 allows for the",
        "You have requested more instances (3) than your current instance limit of 2 allows for",
        "Max spot instance count exceeded. Launching EC2 instance failed.",
        "VcpuLimitExceeded",
        "Max Spot Instance Count Exceeded",
    ],
)
def test_a_quota_of_machines_that_an_auto_scaling_group_met(said: str) -> None:
    """As EC2 says it, without a code: kops#15778, aws-parallelcluster#1115."""
    assert type(aws.error_from_text("node group airflow is CREATE_FAILED", said)) is QuotaReached


def test_a_text_that_quotes_aws(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = aws.error_from_text("eksctl failed", EC2, log)
    assert (type(found), found.log) == (MissingPermission, log)
    assert re.search("ec2:CreateSecurityGroup is not allowed", found.what)
    expired = aws.error_from_text("x", "api error ExpiredToken: The security token")
    assert type(expired) is AccountError
    assert type(aws.error_from_text("x", "Rate exceeded")) is CloudBusy
    busy = aws.error_from_text("x", "it failed", context="and before: Rate exceeded")
    assert (type(busy), busy.what) == (CloudBusy, "x\nit failed")
    assert aws.error_from_text("x", "whatever", fix="do that").fix == "do that"
