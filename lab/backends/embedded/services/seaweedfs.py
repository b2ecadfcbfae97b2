"""SeaweedFS, the S3 server.

Only the S3 port is for clients, and it requires signed requests. The parts talk to each other by
TLS with client certificates of an authority made for this lab alone: without them, the master
would give any local user the right to write, whatever the S3 port requires.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.backends.embedded.services.certificates import Authority
from lab.client.s3 import REGION
from lab.config import Config
from lab.files import write_private_file
from lab.home.secrets import Secrets
from lab.layout import BUCKET, OWNER, STEPS
from lab.model import Port, Service
from lab.wait import NotYet, expect_answer

NAME = "seaweedfs"
GRPC_OFFSET = 10_000  # SeaweedFS derives the gRPC port of a part from its HTTP port
PARTS = ("master", "volume", "filer", "admin")
SOCKET_FOLDERS = {Path("/tmp"), Path(tempfile.gettempdir())}  # noqa: S108  SeaweedFS chose it
# The wheel's program, whatever PATH says.
PROGRAM = Path(sysconfig.get_path("scripts")) / "weed"


def build_service(config: Config, secrets: Secrets, ports: dict[str, int]) -> Service:
    """Return the S3 server on `ports["seaweedfs"]`, with its data in `.lab/data/seaweedfs`."""
    return Service(
        name=NAME,
        command=weed_command(ports),
        folder=config.secrets / NAME,
        environment={"GOMEMLIMIT": "400MiB"},
        ready=lambda: check_ready(config.secrets / NAME, ports),
        ports=listening_ports(ports),
        prepare=lambda: prepare(config, secrets, ports),
    )


def port_names() -> tuple[str, ...]:
    """Return the names of the ports to choose; each port and its gRPC companion must be free."""
    return (NAME, *(f"{NAME}-{part}" for part in PARTS))


def companion_ports(ports: Mapping[str, int]) -> dict[str, int]:
    """Return the gRPC port that belongs to each of SeaweedFS's ports among `ports`."""
    return {name: ports[name] + GRPC_OFFSET for name in port_names() if name in ports}


def weed_command(ports: dict[str, int]) -> tuple[str, ...]:
    flags: dict[str, object] = {
        "dir": Path("..", "..", "data", NAME),  # relative: a comma in the home would split the flag
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "s3.port": ports[NAME],
        "s3.port.grpc": ports[NAME] + GRPC_OFFSET,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": "s3.json",
        "s3.autoCreateBucket": "false",
        "webdav": "false",
        "admin.ui": "false",
    }
    for part in PARTS:
        flags[f"{part}.port"] = ports[f"{NAME}-{part}"]
        flags[f"{part}.port.grpc"] = ports[f"{NAME}-{part}"] + GRPC_OFFSET
    logs = ("-logtostderr=true",)
    return (str(PROGRAM), *logs, "mini", *(f"-{name}={value}" for name, value in flags.items()))


def listening_ports(ports: dict[str, int]) -> tuple[Port, ...]:
    inner = "TLS with a client certificate of this lab's own authority"
    parts = [(f"{NAME}-{part}", ports[f"{NAME}-{part}"]) for part in PARTS]
    return (
        Port(NAME, ports[NAME], "S3 requests signed with a random key"),
        *(Port(name, number, inner) for name, number in parts),
        *(
            Port(f"{name}-grpc", n + GRPC_OFFSET, inner)
            for name, n in [(NAME, ports[NAME]), *parts]
        ),
    )


def check_ready(folder: Path, ports: Mapping[str, int]) -> None:
    """Raise NotYet until S3 answers 403 to an unsigned request, and stored bytes can be read.

    403 means that it is up and requires keys. `folder` has the certificates.
    """
    expect_answer(f"http://127.0.0.1:{ports[NAME]}/", status=403)
    check_volume_server(folder, ports)


def check_volume_server(folder: Path, ports: Mapping[str, int]) -> None:
    """Raise NotYet until the master knows the part that has the bytes.

    When that part's first heartbeat comes before the master leads, the next comes 5 s later. Until
    then S3 answers 500 for what is stored, though the part listens.
    """
    reply = expect_answer(
        f"https://127.0.0.1:{ports[f'{NAME}-master']}/dir/status",
        cert=(str(folder / "node.crt"), str(folder / "node.key")),
        verify=str(folder / "authority.crt"),
    )
    if not reply.json()["Topology"]["DataCenters"]:
        raise NotYet("its master knows of no volume server yet")


def prepare(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Write certificates and keys, and delete the sockets of a killed server."""
    folder = config.secrets / NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    (config.data / NAME).mkdir(mode=0o700, exist_ok=True)
    remove_sockets(ports)
    if not (folder / "security.toml").exists():
        write_certificates(folder)
        write_private_file(folder / "security.toml", render_security_toml(folder, secrets))
    write_private_file(folder / "s3.json", json.dumps({"identities": identities(secrets)}))


def write_certificates(folder: Path) -> None:
    authority = Authority(f"{NAME} of one lab")
    write_private_file(folder / "authority.crt", authority.certificate())
    certificate, key = authority.issue_certificate(NAME)
    write_private_file(folder / "node.crt", certificate)
    write_private_file(folder / "node.key", key)


def identities(secrets: Secrets) -> list[dict[str, object]]:
    """Return the identities of s3.json: the owner, and the steps with access to one bucket."""
    return [
        identity(secrets, OWNER, ["Admin", "Read", "Write", "List", "Tagging"]),
        identity(secrets, STEPS, [f"{what}:{BUCKET}" for what in ("Read", "Write", "List")]),
    ]


def identity(secrets: Secrets, name: str, actions: list[str]) -> dict[str, object]:
    key = {"accessKey": access_key(secrets, name), "secretKey": secret_key(secrets, name)}
    return {"name": name, "credentials": [key], "actions": actions}


def access_key(secrets: Secrets, name: str) -> str:
    return secrets.get(f"s3_{name}_access_key", 15)


def secret_key(secrets: Secrets, name: str) -> str:
    return secrets.get(f"s3_{name}_secret_key", 30)


def render_security_toml(folder: Path, secrets: Secrets) -> str:
    """Render SeaweedFS's security.toml: signed file ids, mutual TLS on HTTP and on gRPC."""
    text = [
        f"[{section}]\nkey = {toml_string(secrets.get('seaweedfs_' + section.replace('.', '_')))}"
        for section in (
            "jwt.signing",
            "jwt.signing.read",
            "jwt.filer_signing",
            "jwt.filer_signing.read",
        )
    ]
    authority = f"ca = {toml_string(folder / 'authority.crt')}"
    pair = f"cert = {toml_string(folder / 'node.crt')}\nkey = {toml_string(folder / 'node.key')}"
    text.append(f"[grpc]\n{authority}")
    text += [f"[grpc.{part}]\n{pair}" for part in (*PARTS, "s3", "client", "worker", "msg_broker")]
    text.append(f"[https.client]\nenabled = true\n{pair}\n{authority}")
    text += [f"[https.{part}]\n{pair}\n{authority}" for part in PARTS]
    return "\n\n".join(text) + "\n"


def toml_string(value: object) -> str:
    """Render a TOML string as JSON does: JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)


def remove_sockets(ports: dict[str, int]) -> None:
    """Delete the Unix sockets that SeaweedFS makes in the temporary folder.

    It removes them itself unless it is killed; their names contain its ports.
    """
    for name in port_names():
        for number in (ports[name], ports[name] + GRPC_OFFSET):
            for folder in SOCKET_FOLDERS:
                for socket in folder.glob(f"seaweedfs-*-{number}.sock"):
                    with contextlib.suppress(OSError):
                        socket.unlink()


def step_environment(secrets: Secrets, ports: dict[str, int]) -> dict[str, str]:
    """Return the variables that boto3 and DVC read, named as on a cluster; EKS has no endpoint."""
    return {
        "S3_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports[NAME]}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": access_key(secrets, STEPS),
        "AWS_SECRET_ACCESS_KEY": secret_key(secrets, STEPS),
        # boto3 >= 1.36 sends checksum trailers that not every S3 server understands.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def is_installed() -> bool:
    """Return whether the wheel's program is installed."""
    return shutil.which(PROGRAM) is not None
