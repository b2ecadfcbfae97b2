"""obstore asks the server that boto3 asks, with the same credentials, or is not asked at all."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials

from dataset_steps import transfer
from dataset_steps.transfer import FastStore, client_options, find_address, find_credentials


class Sent(Exception):
    """A request that was about to be sent."""


def boto3_url(endpoint: str | None, bucket: str, region: str) -> tuple[str, str]:
    """Return boto3's endpoint, and the URL to which it would send a request for `key`."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )

    def stop(request: Any, **_: object) -> None:
        raise Sent(request.url)

    client.meta.events.register("before-send.s3.GetObject", stop)
    with pytest.raises(Sent) as sent:
        client.get_object(Bucket=bucket, Key="key")
    return client.meta.endpoint_url, str(sent.value)


@pytest.mark.parametrize("bucket", ["my-bucket", "my.bucket"])
@pytest.mark.parametrize("region", ["eu-central-1", "cn-north-1"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:8333", "https://minio.stores:9000"])
def test_the_address_is_the_one_of_boto3(bucket: str, region: str, endpoint: str | None) -> None:
    asked, url = boto3_url(endpoint, bucket, region)
    address, has_bucket = find_address(asked, bucket)
    assert f"{address}/key" == url if has_bucket else f"{address}/{bucket}/key" == url


def test_the_remote_s_own_key_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert find_credentials({}) is None
    found = find_credentials({"key": "a", "secret": "b", "token": "c"})
    assert found
    assert found.get_frozen_credentials() == ReadOnlyCredentials("a", "b", "c")


def test_what_boto3_has_found_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    session = boto3.Session(aws_access_key_id="of", aws_secret_access_key="session")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    found = find_credentials({})
    assert found
    assert found.access_key == "of"


def test_credentials_that_expire_are_asked_for_again() -> None:
    """As those of a pod's identity: obstore is told the newest, and asks again before they end."""
    keys = iter(["first", "second"])

    def refresh() -> dict[str, Any]:
        soon = datetime.now(UTC) + timedelta(seconds=599)  # less than botocore hands out
        return {
            "access_key": next(keys),
            "secret_key": "s",
            "token": "t",
            "expiry_time": soon.isoformat(),
        }

    tell = transfer.provide(RefreshableCredentials.create_from_metadata(refresh(), refresh, "x"))
    told = tell()
    assert (told["access_key_id"], told["token"]) == ("second", "t")
    assert told["expires_at"]
    assert told["expires_at"] <= datetime.now(UTC) + timedelta(minutes=10)


def test_certificates_are_those_of_boto3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"of the lab")
    (tmp_path / "own.pem").write_bytes(b"of the remote")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    assert "root_certificate" not in client_options("https://x", None)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert client_options("https://x", None)["root_certificate"] == b"of the lab"
    own = client_options("https://x", str(tmp_path / "own.pem"))
    assert own["root_certificate"] == b"of the remote"
    assert not own["allow_http"]
    assert client_options("http://x", False)["allow_invalid_certificates"]


@pytest.mark.parametrize(
    "options",
    [
        {"s3_additional_kwargs": {"ACL": "private"}},
        {"client_kwargs": {"verify": "/nowhere.pem"}},
    ],
)
def test_what_obstore_can_t_do_it_is_not_asked(options: dict[str, Any]) -> None:
    client = boto3.client(
        "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    key = {"key": "a", "secret": "b"}
    assert transfer.open_store(client, "bucket", key)
    assert transfer.open_store(client, "bucket", key | options) is None


def test_after_many_failures_obstore_is_not_asked_any_more() -> None:
    asked: list[str] = []

    def fail(_: object, key: str) -> None:
        asked.append(key)
        raise OSError("no route")

    store: Any = None
    fast = FastStore(store)
    for number in range(100):
        assert fast.ask(fail, str(number)) is None
    assert len(asked) == transfer.MOST_FAILURES


def test_objects_that_are_not_there_are_no_failures() -> None:
    def miss(*_: object) -> None:
        raise FileNotFoundError

    store: Any = None
    fast = FastStore(store)
    for _ in range(100):
        assert fast.ask(miss) is None
    assert fast.failures == 0


def test_no_thread_is_started_before_the_first_request() -> None:
    """The process that has it imported is forked."""
    before = threading.active_count()
    client = boto3.client(
        "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    assert transfer.build_store(client, "bucket", {}, Credentials("a", "b"))
    assert threading.active_count() == before
