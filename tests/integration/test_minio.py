"""MinIO as the lab sets it up: the real server in a container, and boto3 as the steps use it."""

from __future__ import annotations

import io
import itertools
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import pytest
import urllib3
from botocore.exceptions import ClientError
from minio.error import MinioAdminException

from lab.backends.kind import minio, s3_policies
from lab.client import s3
from lab.cluster.associations import read_roles
from lab.cluster.forward import check_answer
from lab.config import KIT
from lab.errors import AccessError, ServiceError
from lab.layout import BUCKET
from lab.model import Access
from lab.wait import wait_until
from tests.support.needs import ensure_image

pytestmark = pytest.mark.kind

PORT = 9000
ROOT = "lab-owner"

DATA = "/data"
OWNER_OF_DATA = 65532  # the user that the image runs as

ROLES = {role.name: role for role in read_roles(KIT)}

serial = itertools.count()


class Killed(BaseException):
    """A stand-in for SIGKILL: nothing may catch it."""


@dataclass(frozen=True)
class Server:
    """A running MinIO, and a test's own bucket and key."""

    url: str
    password: str
    bucket: str = BUCKET
    key: str = "steps"
    secret: str = "steps-secret-key"

    @property
    def account(self) -> minio.Account:
        """The account of a role, by default the steps'; its policy is made from those for AWS."""
        policy = s3_policies.read_role_policy(KIT, ROLES.get(self.key, ROLES["steps"]), self.bucket)
        return minio.Account(self.key, self.secret, policy)

    def prepare(self) -> None:
        minio.prepare(self.url, ROOT, self.password, self.bucket, [self.account])

    def create_client(self, key: str, secret: str) -> Any:
        given: dict[str, Any] = dict.fromkeys((one.name for one in fields(Access)), "")
        given |= {"s3_endpoint": self.url, "s3_access_key": key, "s3_secret_key": secret}
        given["s3_region"] = s3.REGION
        return s3.create_client(Access(**given))

    @property
    def root(self) -> Any:
        return self.create_client(ROOT, self.password)

    @property
    def steps(self) -> Any:
        return self.create_client(self.key, self.secret)

    @property
    def administration(self) -> Any:
        return minio.admin_client(self.url, ROOT, self.password)

    def read_versions(self, key: str) -> list[bytes]:
        """Return the contents of all versions of an object, newest first."""
        found = self.root.list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions", [])
        bodies = (
            self.root.get_object(Bucket=self.bucket, Key=key, VersionId=one["VersionId"])["Body"]
            for one in found
        )
        return [body.read() for body in bodies]


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """Start a fresh MinIO, with nothing prepared."""
    name, password = ensure_image("minio"), secrets.token_urlsafe(24)
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True  # the block below ends the container
    container = DockerContainer(
        name,
        command=f"server {DATA} --address :{PORT}",
        env={"MINIO_ROOT_USER": ROOT, "MINIO_ROOT_PASSWORD": password, "MINIO_UPDATE": "off"},
    )
    container.with_tmpfs_mount(DATA, f"size=256m,uid={OWNER_OF_DATA},gid={OWNER_OF_DATA}")
    cast("dict[str, Any]", container.ports)[f"{PORT}/tcp"] = ("127.0.0.1", None)
    with container:
        url = f"http://127.0.0.1:{container.get_exposed_port(PORT)}"
        wait_until(lambda: check_answer(f"{url}/minio/health/live"), what="MinIO", timeout=60)
        yield Server(url, password)


@pytest.fixture
def new(running: Server) -> Server:
    """Return the server with a bucket and a key that do not exist yet, and without a policy."""
    root = running.administration
    for user in json.loads(root.user_list()):
        root.user_remove(user)
    if minio.find_by_name(root.policy_info, running.key):
        root.policy_remove(running.key)
    number = next(serial)
    return replace(running, bucket=f"bucket-{number}", key=f"steps-{number}")


@pytest.fixture
def server(running: Server) -> Server:
    """Return MinIO, prepared as the lab's S3 server."""
    running.prepare()
    return running


def watch_changes(monkeypatch: pytest.MonkeyPatch, after: Callable[[str], None]) -> None:
    """Call `after` with each request that changed something, once it has."""
    send = urllib3.PoolManager.urlopen

    def send_and_report(pool: urllib3.PoolManager, method: str, url: str, **options: Any) -> Any:
        response = send(pool, method, url, **options)
        if method not in {"GET", "HEAD"}:
            after(f"{method} {url}")
        return response

    monkeypatch.setattr(urllib3.PoolManager, "urlopen", send_and_report)


def expect_refusal(call: Callable[..., object], **arguments: object) -> None:
    """Check that the server denies access."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] in {"AccessDenied", "403"}


# --- Preparing ----------------------------------------------------------------------------------


def test_a_second_call_changes_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    watch_changes(monkeypatch, made.append)
    server.prepare()
    assert not made


@pytest.mark.parametrize("number", range(1, 6))
def test_a_call_that_was_killed_is_completed(
    new: Server, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = number

    def count_change(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    watch_changes(monkeypatch, count_change)
    with pytest.raises(Killed):
        new.prepare()
    new.prepare()
    prove_prepared(new)


def prove_prepared(server: Server) -> None:
    versioning = server.root.get_bucket_versioning(Bucket=server.bucket)
    assert versioning["Status"] == "Enabled"
    user = minio.find_by_name(server.administration.user_info, server.key)
    assert user and (user["policyName"], user["status"]) == (server.key, "enabled")
    policy = minio.find_by_name(server.administration.policy_info, server.key)
    wanted = server.account.policy
    assert policy and minio.canonical(policy["Statement"]) == minio.canonical(wanted["Statement"])
    assert server.steps.list_objects_v2(Bucket=server.bucket)["KeyCount"] == 0


def test_a_changed_policy_is_updated(server: Server) -> None:
    everything = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    other = {"Version": "2012-10-17", "Statement": [everything]}
    server.administration.policy_add(server.key, policy=other)
    server.prepare()
    expect_refusal(server.steps.delete_object, Bucket=BUCKET, Key="any")


def test_another_policy_of_the_key_is_taken_away(server: Server) -> None:
    server.administration.policy_set("readwrite", user=server.key)
    server.prepare()
    expect_refusal(server.steps.delete_object, Bucket=BUCKET, Key="any")


def test_a_key_that_was_shut_out_is_let_in(server: Server) -> None:
    server.administration.user_disable(server.key)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):  # as if it were not there
        server.steps.list_objects_v2(Bucket=BUCKET)
    server.prepare()
    server.steps.list_objects_v2(Bucket=BUCKET)


def test_another_secret_replaces_the_one_before(server: Server) -> None:
    other = replace(server, secret="another-secret-key")
    other.prepare()
    other.steps.list_objects_v2(Bucket=BUCKET)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        server.steps.list_objects_v2(Bucket=BUCKET)


def test_versioning_that_was_suspended_is_on_again(server: Server) -> None:
    suspended = {"Status": "Suspended"}
    server.root.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration=suspended)
    server.prepare()
    assert server.root.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"


# --- Rights -------------------------------------------------------------------------------------


def test_what_a_step_does(server: Server) -> None:
    content = secrets.token_bytes(100)
    place = {"Bucket": BUCKET, "Key": "store/files/md5/ab/cd"}
    server.steps.put_object(**place, Body=content)
    assert server.steps.head_object(**place)["ContentLength"] == 100
    assert server.steps.get_object(**place)["Body"].read() == content
    (found,) = server.steps.list_objects_v2(Bucket=BUCKET, Prefix=place["Key"])["Contents"]
    assert found["Key"] == place["Key"]
    with pytest.raises(ClientError, match="404"):
        server.steps.head_object(Bucket=BUCKET, Key="store/absent")


def test_a_step_sends_an_object_in_parts_and_gives_up_on_one(server: Server) -> None:
    content = secrets.token_bytes(9 * 2**20)  # boto3 sends parts of 8 MiB
    server.steps.upload_fileobj(io.BytesIO(content), BUCKET, "store/large")
    assert server.steps.get_object(Bucket=BUCKET, Key="store/large")["Body"].read() == content
    place = {"Bucket": BUCKET, "Key": "store/given-up"}
    upload = server.steps.create_multipart_upload(**place)["UploadId"]
    server.steps.abort_multipart_upload(**place, UploadId=upload)
    assert not server.root.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_nothing_stored_is_lost(server: Server) -> None:
    place = {"Bucket": BUCKET, "Key": f"store/kept-{next(serial)}"}
    for body in (b"first", b"second"):
        server.steps.put_object(**place, Body=body)
    server.root.delete_object(**place)
    assert server.read_versions(place["Key"]) == [b"second", b"first"]


def test_a_step_deletes_nothing(server: Server) -> None:
    place = {"Bucket": BUCKET, "Key": "store/stays"}
    version = server.steps.put_object(**place, Body=b"it stays")["VersionId"]
    expect_refusal(server.steps.delete_object, **place)
    expect_refusal(server.steps.delete_object, **place, VersionId=version)
    expect_refusal(server.steps.delete_bucket, Bucket=BUCKET)
    several = {"Objects": [{"Key": place["Key"]}]}
    deleted = server.steps.delete_objects(Bucket=BUCKET, Delete=several)
    assert [error["Code"] for error in deleted["Errors"]] == ["AccessDenied"]
    assert server.steps.get_object(**place)["Body"].read() == b"it stays"


def test_each_role_reads_and_writes_its_own_prefixes_and_nothing_else(running: Server) -> None:
    """As its documents for AWS say: kind has no policy of its own."""
    everywhere = ("store", "results", "landing", "notifications", "logs")
    may = {
        "steps": ({"store", "results"}, {"store", "results"}),
        "airflow": ({"store", "results", "landing"}, {"results", "notifications"}),
    }
    for name, (reads, writes) in may.items():
        server = replace(running, key=name)
        server.prepare()
        for prefix in everywhere:
            place = {"Bucket": BUCKET, "Key": f"{prefix}/of-a-test"}
            server.root.put_object(**place, Body=b"")
            expect(prefix in reads, server.steps.get_object, **place)
            expect(
                prefix in reads, server.steps.list_objects_v2, Bucket=BUCKET, Prefix=f"{prefix}/"
            )
            expect(prefix in writes, server.steps.put_object, **place, Body=b"")
            expect(False, server.steps.delete_object, **place)
        expect(False, server.steps.list_objects_v2, Bucket=BUCKET, Prefix="st")
        expect(True, server.steps.list_objects_v2, Bucket=BUCKET)  # it names no prefix


def test_airflow_deletes_records_of_runs(running: Server) -> None:
    server = replace(running, key="airflow")
    server.prepare()
    record = {"Bucket": BUCKET, "Key": "results/sales_pipeline/runs/one/records.json"}
    server.steps.put_object(**record, Body=b"of a run")
    server.steps.delete_object(**record)
    found = server.steps.list_objects_v2(Bucket=BUCKET, Prefix="results/sales_pipeline/")
    assert not found.get("Contents")


def expect(allowed: bool, call: Callable[..., object], **arguments: object) -> None:
    """Check that the server allows the call, or denies access."""
    call(**arguments) if allowed else expect_refusal(call, **arguments)


def test_a_step_changes_nothing_about_the_bucket(server: Server) -> None:
    suspended = {"Status": "Suspended"}
    steps = server.steps
    expect_refusal(steps.put_bucket_versioning, Bucket=BUCKET, VersioningConfiguration=suspended)
    expect_refusal(steps.put_bucket_policy, Bucket=BUCKET, Policy=json.dumps(server.account.policy))
    expect_refusal(steps.create_bucket, Bucket="a-bucket-of-its-own")


def test_a_step_reaches_no_other_bucket(server: Server) -> None:
    other = f"other-{next(serial)}"
    server.root.create_bucket(Bucket=other)
    server.root.put_object(Bucket=other, Key="private", Body=b"")
    expect_refusal(server.steps.list_objects_v2, Bucket=other)
    expect_refusal(server.steps.get_object, Bucket=other, Key="private")
    expect_refusal(server.steps.put_object, Bucket=other, Key="mine", Body=b"")
    expect_refusal(server.steps.list_buckets)


def test_a_step_administers_nothing_not_even_its_own_key(server: Server) -> None:
    steps = minio.admin_client(server.url, server.key, server.secret)
    for call in (
        steps.info,
        steps.user_list,
        lambda: steps.user_add("another", "another-secret-key"),
        lambda: steps.user_add(server.key, "another-secret-key"),
        lambda: steps.add_service_account(name="another"),
        lambda: steps.policy_set("consoleAdmin", user=server.key),
    ):
        with pytest.raises(MinioAdminException, match="AccessDenied"):
            call()


# --- Failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", [BUCKET, "not-there-yet"])
def test_a_wrong_password_is_an_access_error(server: Server, bucket: str) -> None:
    with pytest.raises(AccessError) as caught:
        replace(server, password="wrong-password", bucket=bucket).prepare()
    assert "wrong-password" not in caught.value.what


def test_a_key_that_is_not_the_owners_is_an_access_error(server: Server) -> None:
    with pytest.raises(AccessError), minio.translating_errors():
        minio.admin_client(server.url, server.key, server.secret).info()


def test_an_impossible_key_is_a_service_error(server: Server) -> None:
    with pytest.raises(ServiceError) as caught:
        replace(server, key="x", secret="short").prepare()
    assert "short" not in caught.value.what


def test_a_server_that_is_not_there() -> None:
    nobody = Server("http://127.0.0.1:9", "some-password")
    with pytest.raises(ServiceError, match="does not answer") as caught:
        nobody.prepare()
    assert nobody.password not in caught.value.what
