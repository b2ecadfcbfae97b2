"""Errors for the owner of a cluster on AWS, where the code that raises them speaks of a lab."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from kubernetes.client import ApiException

from eks import __main__ as command_line
from eks import environment, errors, site
from lab import wait
from lab.client import s3
from lab.cluster import api
from lab.config import KIT
from lab.errors import (
    AccessError,
    AccountError,
    CloudBusy,
    LabError,
    MissingPermission,
    ProofError,
    ServiceError,
)
from lab.shell import run


@pytest.fixture
def staging(tmp_path: Path) -> site.Site:
    return site.create_site(environment.load("staging"), tmp_path, KIT)


def access_denied_error() -> ClientError:
    said = "User: me is not authorized to perform: s3:GetObject on resource: arn:aws:s3:::b/k"
    meta = {"HTTPStatusCode": 403, "Service": "s3"}
    answer = {"Error": {"Code": "AccessDenied", "Message": said}, "ResponseMetadata": meta}
    return ClientError(answer, "GetObject")  # type: ignore[arg-type]


def test_a_permission_that_the_proof_lacks_is_named(staging: site.Site) -> None:
    with (
        pytest.raises(MissingPermission, match="s3:GetObject"),
        errors.translating_errors(staging),
        s3.translating_errors(),
    ):
        raise access_denied_error()


def test_an_address_that_does_not_answer_is_aws_being_busy(staging: site.Site) -> None:
    gone = EndpointConnectionError(endpoint_url="https://s3.eu-central-1.amazonaws.com")
    with (
        pytest.raises(CloudBusy, match=r"s3\.eu-central-1"),
        errors.translating_errors(staging),
        s3.translating_errors(),
    ):
        raise gone


def test_a_token_that_has_ended_is_of_the_account(staging: site.Site) -> None:
    with (
        pytest.raises(AccountError, match="401"),
        errors.translating_errors(staging),
        api.translating_errors(),
    ):
        raise ApiException(status=401, reason="Unauthorized")


def test_a_wait_that_ends_says_where_to_look_in_the_cluster(staging: site.Site) -> None:
    def raise_not_yet() -> None:
        raise wait.NotYet("it is Pending")

    with pytest.raises(ServiceError, match="Pending") as told, errors.translating_errors(staging):
        wait.wait_until(raise_not_yet, what="Airflow", timeout=0)
    assert f"kubectl --kubeconfig {staging.folder}/kubeconfig" in told.value.fix


def test_an_account_that_is_refused_is_one_of_the_cluster(staging: site.Site) -> None:
    refused = AccessError("the git server refused the account 'x'", "its password is in `lab env`")
    with pytest.raises(AccessError, match="git server") as told, errors.translating_errors(staging):
        raise refused
    assert "git-credentials" in told.value.fix


def test_what_is_true_anywhere_is_told_as_it_is(staging: site.Site) -> None:
    with pytest.raises(ProofError) as told, errors.translating_errors(staging):
        raise ProofError("the object is gone", "restore it from its older version")
    assert told.value.fix == "restore it from its older version"


def test_an_error_keeps_its_kind(staging: site.Site) -> None:
    with pytest.raises(LabError) as told, errors.translating_errors(staging):
        raise ServiceError("helm failed", "lab logs, lab doctor; then lab up again")
    assert type(told.value) is ServiceError
    assert not errors.OF_A_LAB.search(told.value.fix)


@pytest.mark.parametrize(
    ("command", "part"),
    [("apply", "promotion.apply"), ("verify", "proof.prove"), ("destroy", "removal.destroy")],
)
def test_each_command_tells_it_so(
    command: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_service_error(*_: object) -> None:
        raise ServiceError("helm failed", "lab logs, lab doctor; then lab up again")

    monkeypatch.setattr(site, "HOME", str(tmp_path))
    monkeypatch.setattr(f"eks.__main__.{part}", raise_service_error)
    with pytest.raises(ServiceError) as told:
        command_line.app([command], standalone_mode=False)
    assert f"--kubeconfig {tmp_path}/staging/kubeconfig" in told.value.fix


def test_what_a_program_printed_is_kept_with_the_environment(staging: site.Site) -> None:
    with pytest.raises(LabError, match="no room") as caught, errors.translating_errors(staging):
        run(["sh", "-c", "echo 'error: no room' >&2; exit 1"], timeout=30)
    assert caught.value.what == "sh failed: no room"
    assert caught.value.log == staging.folder / "sh.log"
    assert "error: no room" in caught.value.log.read_text()
