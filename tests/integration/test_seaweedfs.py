"""The S3 server: whom each port lets in, and what a crash leaves."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from lab.backends.embedded.services import seaweedfs
from lab.backends.embedded.services.seaweedfs import GRPC_OFFSET, NAME
from lab.client.s3 import REGION
from lab.home.ports import choose_ports
from lab.layout import BUCKET, OWNER, STEPS
from lab.wait import NotYet, wait_until

if TYPE_CHECKING:
    from tests.support.stores import Stores

SECONDS = 10  # for one request
DENIED = {"AccessDenied", "403"}
# Paths that the parts answer to whoever they let in.
PATHS = ("/", "/dir/assign", "/dir/status", "/status", "/metrics", "/buckets/", "/ui/index.html")
# The start of each HTTP/2 connection, and so of gRPC, with an empty SETTINGS frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4  # the type of the frame with which a server begins


def create_client(stores: Stores, user: str, service: str = "s3", **more: str) -> Any:
    """Return boto3's client with a user's key, or with a wrong one."""
    secrets = stores.site.secrets
    key = {
        "aws_access_key_id": seaweedfs.access_key(secrets, user),
        "aws_secret_access_key": seaweedfs.secret_key(secrets, user),
    }
    once = Config(retries={"total_max_attempts": 1}, read_timeout=SECONDS)
    place = {"endpoint_url": stores.lab.s3_endpoint, "region_name": REGION}
    return boto3.client(service, config=once, **{**key, **place, **more})  # type: ignore[call-overload]


def expect_refusal(call: Callable[..., object], **arguments: object) -> None:
    """Check that the server answers 403."""
    with pytest.raises(ClientError) as answer:
        call(**arguments)
    assert answer.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, answer.value


# --- The S3 port


@pytest.fixture
def key(stores: Stores) -> str:
    """Return the key of an object that exists."""
    stores.client.put_object(Bucket=BUCKET, Key="some/object", Body=b"some bytes")
    return "some/object"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/{bucket}"),
        ("GET", "/{bucket}?list-type=2"),
        ("GET", "/{bucket}/{key}"),
        ("HEAD", "/{bucket}/{key}"),
        ("PUT", "/{bucket}/new"),
        ("PUT", "/new-bucket"),
        ("POST", "/{bucket}?delete"),
        ("DELETE", "/{bucket}/{key}"),
        ("DELETE", "/{bucket}"),
    ],
)
def test_an_unsigned_request_is_refused(stores: Stores, key: str, method: str, path: str) -> None:
    url = stores.lab.s3_endpoint + path.format(bucket=BUCKET, key=key)
    assert requests.request(method, url, timeout=SECONDS).status_code == 403
    assert stores.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"some bytes"


@pytest.mark.parametrize("version", ["2010-05-08", "2011-06-15"])  # of IAM, and of STS
@pytest.mark.parametrize(
    "action", ["ListUsers", "CreateAccessKey", "AssumeRole", "GetFederationToken"]
)
def test_an_unsigned_request_for_a_key_is_refused(
    stores: Stores, action: str, version: str
) -> None:
    who = {"UserName": "lab", "Name": "lab", "RoleArn": "arn:aws:iam::0:role/lab"}
    form = {"Action": action, "Version": version, "RoleSessionName": "lab", **who}
    reply = requests.post(stores.lab.s3_endpoint, data=form, timeout=SECONDS)
    assert reply.status_code in {400, 403}
    assert "<AccessKeyId>" not in reply.text


@pytest.mark.parametrize("wrong", ["aws_secret_access_key", "aws_access_key_id"])
@pytest.mark.parametrize("user", [OWNER, STEPS])
def test_a_wrong_key_is_refused(stores: Stores, key: str, user: str, wrong: str) -> None:
    s3 = create_client(stores, user, **{wrong: "c4nary-of-nobody"})
    expect_refusal(s3.list_buckets)
    expect_refusal(s3.get_object, Bucket=BUCKET, Key=key)
    expect_refusal(s3.put_object, Bucket=BUCKET, Key=key, Body=b"other")


def test_the_steps_may_use_their_bucket(stores: Stores, key: str) -> None:
    s3 = create_client(stores, STEPS)
    s3.put_object(Bucket=BUCKET, Key="of/steps", Body=b"bytes")
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"some bytes"
    assert key in [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix="some")["Contents"]]


@pytest.fixture
def foreign(stores: Stores) -> Iterator[str]:
    """Yield the bucket of somebody else, which holds an object."""
    name = f"{BUCKET}-of-others"  # its name begins with that of the steps' bucket
    stores.client.create_bucket(Bucket=name)
    stores.client.put_object(Bucket=name, Key="object", Body=b"not for steps")
    yield name
    for found in stores.client.list_objects_v2(Bucket=name).get("Contents", []):
        stores.client.delete_object(Bucket=name, Key=found["Key"])
    stores.client.delete_bucket(Bucket=name)


def test_the_steps_reach_no_other_bucket(stores: Stores, foreign: str, key: str) -> None:
    s3 = create_client(stores, STEPS)
    expect_refusal(s3.list_objects_v2, Bucket=foreign)
    expect_refusal(s3.get_object, Bucket=foreign, Key="object")
    expect_refusal(s3.head_object, Bucket=foreign, Key="object")
    expect_refusal(s3.put_object, Bucket=foreign, Key="object", Body=b"other")
    expect_refusal(s3.delete_object, Bucket=foreign, Key="object")
    source = {"Bucket": foreign, "Key": "object"}
    expect_refusal(s3.copy_object, Bucket=BUCKET, Key="stolen", CopySource=source)
    expect_refusal(
        s3.copy_object, Bucket=foreign, Key="new", CopySource={"Bucket": BUCKET, "Key": key}
    )
    for way in (f"../{foreign}/object", f"a/../../{foreign}/object", f"/../{foreign}/object"):
        with suppress(ClientError):
            s3.put_object(Bucket=BUCKET, Key=way, Body=b"other")
        with suppress(ClientError):
            body = s3.get_object(Bucket=BUCKET, Key=way)["Body"].read()
            assert body != b"not for steps"
    found = stores.client.get_object(Bucket=foreign, Key="object")["Body"].read()
    assert found == b"not for steps"


def test_the_steps_make_and_remove_no_bucket(stores: Stores, foreign: str) -> None:
    s3 = create_client(stores, STEPS)
    before = list_buckets(stores)
    expect_refusal(s3.create_bucket, Bucket="new-bucket")
    expect_refusal(s3.delete_bucket, Bucket=foreign)
    expect_refusal(s3.delete_bucket, Bucket=BUCKET)
    expect_refusal(s3.put_object, Bucket="new-bucket", Key="object", Body=b"")
    assert list_buckets(stores) == before > {BUCKET}
    assert foreign not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def list_buckets(stores: Stores) -> set[str]:
    """Return the names of all buckets, those of tests that share the server, too."""
    return {bucket["Name"] for bucket in stores.client.list_buckets()["Buckets"]}


def test_the_steps_give_nobody_rights(stores: Stores) -> None:
    iam = create_client(stores, STEPS, "iam")
    expect_refusal(iam.create_user, UserName="other")
    expect_refusal(iam.create_access_key, UserName=OWNER)
    expect_refusal(iam.create_access_key, UserName=STEPS)
    expect_refusal(iam.list_access_keys, UserName=OWNER)
    sts = create_client(stores, STEPS, "sts")
    expect_refusal(sts.get_federation_token, Name="other")
    s3 = create_client(stores, STEPS)
    expect_refusal(s3.put_bucket_policy, Bucket=BUCKET, Policy="{}")
    expect_refusal(s3.put_bucket_acl, Bucket=BUCKET, ACL="public-read")


def test_bytes_other_than_their_checksum_are_refused(stores: Stores) -> None:
    """The proof that a step asks for relies on this."""
    md5 = "1B2M2Y8AsgTpgAmY7PhCfg=="  # of nothing
    with pytest.raises(ClientError, match="BadDigest"):
        stores.client.put_object(Bucket=BUCKET, Key="changed", Body=b"changed", ContentMD5=md5)
    with pytest.raises(ClientError, match="NoSuchKey"):
        stores.client.get_object(Bucket=BUCKET, Key="changed")


# --- The ports between its parts


def inner_ports(stores: Stores) -> dict[str, int]:
    """Return the ports that are for SeaweedFS alone, by name."""
    ports = {port.name: port.number for port in seaweedfs.listening_ports(stores.site.ports)}
    assert ports.pop(NAME) == stores.site.ports[NAME]
    return ports


def http_ports(stores: Stores) -> list[int]:
    return [number for name, number in inner_ports(stores).items() if not name.endswith("-grpc")]


def grpc_ports(stores: Stores) -> list[int]:
    return [number for name, number in inner_ports(stores).items() if name.endswith("-grpc")]


def certificate_options(stores: Stores) -> dict[str, Any]:
    """Return what requests needs to be taken for a part of this lab's SeaweedFS."""
    folder = stores.config.secrets / NAME
    pair = (str(folder / "node.crt"), str(folder / "node.key"))
    return {"cert": pair, "verify": str(folder / "authority.crt")}


def test_every_port_wants_a_certificate(stores: Stores) -> None:
    for port in (*http_ports(stores), *grpc_ports(stores)):
        for path in PATHS:
            assert get_status(f"http://127.0.0.1:{port}{path}") in {None, 400}
            assert get_status(f"https://127.0.0.1:{port}{path}", verify=False) is None


def test_a_part_of_the_server_is_let_in(stores: Stores) -> None:
    """The ports that refuse all others are not simply dead."""
    answers = {
        number: {
            get_status(f"https://127.0.0.1:{number}{path}", **certificate_options(stores))
            for path in PATHS
        }
        for number in http_ports(stores)
    }
    assert len(answers) == len(seaweedfs.PARTS)
    assert all(codes - {None, 400} for codes in answers.values()), answers


def get_status(url: str, **more: Any) -> int | None:
    """Return the status code of the answer; None when there is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return requests.get(url, timeout=SECONDS, allow_redirects=False, **more).status_code
    except requests.RequestException:
        return None


def test_every_grpc_port_wants_a_certificate(stores: Stores) -> None:
    assert len(grpc_ports(stores)) == len(seaweedfs.PARTS) + 1
    for port in grpc_ports(stores):
        assert read_first_frame(port, None) is None
        assert read_first_frame(port, tls_context()) is None
        known = tls_context()
        known.load_cert_chain(*certificate_options(stores)["cert"])
        assert read_first_frame(port, known) == SETTINGS


def test_a_certificate_of_another_authority_is_refused(stores: Stores, tmp_path: Path) -> None:
    seaweedfs.write_certificates(tmp_path)
    pair = (str(tmp_path / "node.crt"), str(tmp_path / "node.key"))
    for port in http_ports(stores):
        assert get_status(f"https://127.0.0.1:{port}/", cert=pair, verify=False) is None
    foreign = tls_context()
    foreign.load_cert_chain(*pair)
    for port in grpc_ports(stores):
        assert read_first_frame(port, foreign) is None


def tls_context() -> ssl.SSLContext:
    """Return a TLS context that trusts every server and shows no certificate of its own."""
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    anybody.set_alpn_protocols(["h2"])
    return anybody


def read_first_frame(port: int, tls: ssl.SSLContext | None) -> int | None:
    """Return the type of the server's first HTTP/2 frame; None when it sends none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plain:
            connection = tls.wrap_socket(plain) if tls else plain
            connection.sendall(PREFACE)
            head = connection.recv(9)
            return head[3] if len(head) == 9 and head[:1] != b"\x15" else None
    except OSError:
        return None


# --- Ports, sockets and files on the machine


def test_it_listens_on_its_declared_ports_of_this_machine_only(stores: Stores) -> None:
    process = stores.find_process(NAME)
    found = [
        connection
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    ]
    assert {connection.laddr.ip for connection in found} == {"127.0.0.1"}
    declared = [port.number for port in seaweedfs.listening_ports(stores.site.ports)]
    assert sorted(connection.laddr.port for connection in found) == sorted(declared)


def list_sockets(stores: Stores) -> list[Path]:
    """List SeaweedFS's Unix sockets for this lab's ports."""
    numbers = [stores.site.ports[name] for name in seaweedfs.port_names()]
    return [
        path
        for number in (*numbers, *(n + GRPC_OFFSET for n in numbers))
        for folder in seaweedfs.SOCKET_FOLDERS
        for path in folder.glob(f"*-{number}.sock")
    ]


def test_its_unix_sockets_are_for_their_owner_only(stores: Stores) -> None:
    assert list_sockets(stores)
    for path in list_sockets(stores):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_its_secrets_are_for_their_owner_only(stores: Stores) -> None:
    folder = stores.config.secrets
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"security.toml", "s3.json", "node.key"} <= {path.name for path in files}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (stores.config.home, folder, folder / NAME, stores.config.data / NAME):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_its_secrets_are_in_no_argument_variable_or_log(stores: Stores) -> None:
    process = stores.find_process(NAME)
    assert not stores.find_leaks("\0".join(process.cmdline()))
    assert not stores.find_leaks("\0".join(process.environ().values()))
    assert not stores.find_leaks((stores.config.logs / f"{NAME}.log").read_text("utf-8"))


# --- Who asks


CONFIG = """[default]
region = nowhere
retry_mode = nonsense
max_attempts = many
ca_bundle = /missing
defaults_mode = nonsense
services = missing
s3 =
  addressing_style = virtual
  us_east_1_regional_endpoint = nonsense
"""
LIST = "import json, sys; from lab.client import s3; from lab.model import Access\n"
LIST += "print(len(s3.list_objects(Access(**json.load(sys.stdin)), 'asked/')))"


def test_a_persons_aws_settings_mean_nothing_to_the_kit(stores: Stores, tmp_path: Path) -> None:
    """Neither variables nor what is in `~/.aws`; in a new process, since botocore keeps some."""
    stores.client.put_object(Bucket=BUCKET, Key="asked/for", Body=b"x")
    models = tmp_path / ".aws" / "models" / "s3" / "2006-03-01"
    models.mkdir(parents=True)
    (models / "service-2.json").write_text("{}")
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    names = ("PROFILE", "DEFAULTS_MODE", "MAX_ATTEMPTS", "RETRY_MODE", "CA_BUNDLE", "DATA_PATH")
    more = ("REGION", "S3_US_EAST_1_REGIONAL_ENDPOINT", "S3_USE_ARN_REGION", "SESSION_TOKEN")
    odd = {f"AWS_{name}": "nonsense" for name in (*names, *more)}
    urls = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), "http://127.0.0.1:1")
    fips = dict.fromkeys(("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"), "true")
    done = subprocess.run(
        [sys.executable, "-c", LIST],
        env={"PATH": os.defpath, "HOME": str(tmp_path), **odd, **urls, **fips},
        input=json.dumps(stores.lab.env()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


# --- What a crash leaves


def expect_several(stored: dict[str, bytes]) -> None:
    """Raise NotYet until some PUTs were answered."""
    if len(stored) <= 10:
        raise NotYet(f"{len(stored)} objects")


def test_objects_outlive_a_kill(stores: Stores) -> None:
    """Every PUT that was answered is there after the restart, with its bytes."""
    stored: dict[str, bytes] = {}
    writer = threading.Thread(target=put_until_it_fails, args=(stores, stored))
    writer.start()
    wait_until(partial(expect_several, stored), what="objects", timeout=60)
    stores.kill(NAME)
    writer.join(60)
    left = list_sockets(stores)
    seaweedfs.remove_sockets(stores.site.ports)
    gone = list_sockets(stores)
    stores.start()
    assert left
    assert not gone
    for key, content in stored.items():
        found = stores.client.get_object(Bucket=BUCKET, Key=key)
        assert found["Body"].read() == content
        assert found["ETag"].strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()


def put_until_it_fails(stores: Stores, stored: dict[str, bytes]) -> None:
    """Put objects until the server fails; `stored` gets each that it has answered."""
    s3 = create_client(stores, STEPS)
    with suppress(Exception):
        for number in range(10_000):
            # Small ones are kept with the names, the others in volumes.
            content = f"{number} ".encode() * (10 if number % 2 else 40_000)
            s3.put_object(Bucket=BUCKET, Key=f"crash/{number}", Body=content)
            stored[f"crash/{number}"] = content


def test_what_was_deleted_or_replaced_stays_so_after_a_kill(stores: Stores) -> None:
    s3 = stores.client
    for key in ("deleted", "replaced"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"old" * 1000)
    s3.delete_object(Bucket=BUCKET, Key="deleted")
    s3.put_object(Bucket=BUCKET, Key="replaced", Body=b"new" * 1000)
    stores.kill(NAME)
    stores.start()
    assert s3.get_object(Bucket=BUCKET, Key="replaced")["Body"].read() == b"new" * 1000
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=BUCKET, Key="deleted")


def test_without_its_volume_server_it_is_not_ready(stores: Stores, tmp_path: Path) -> None:
    """For 5 s after an unlucky start: S3 answers, and what is stored can't be read."""
    folder = stores.config.secrets / NAME
    ports = stores.site.state.ports
    seaweedfs.check_volume_server(folder, ports)
    alone = choose_ports(["master", "master-grpc"], {}, 0, ports)
    flags = {"mdir": tmp_path, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "port": alone["master"]}
    words = [f"-{flag}={value}" for flag, value in flags.items()]
    command = [str(seaweedfs.PROGRAM), "master", *words, f"-port.grpc={alone['master-grpc']}"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as master:
        try:
            look = partial(
                seaweedfs.check_volume_server, folder, {f"{NAME}-master": alone["master"]}
            )
            with pytest.raises(NotYet, match="no volume server"):
                wait_until(look, what="the master", timeout=SECONDS, retry=(OSError,))
        finally:
            master.terminate()  # it removes its sockets in the temporary folder


def test_other_labs_sockets_are_left_alone(stores: Stores) -> None:
    other = Path(tempfile.gettempdir()) / "seaweedfs-s3-1.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(other))
        try:
            seaweedfs.remove_sockets(dict.fromkeys(seaweedfs.port_names(), 2))
            assert other.exists()
        finally:
            other.unlink()
