"""SeaweedFS, the S3 server.

Only its S3 port is for others, and that one wants signed requests. Between its own parts it speaks
TLS with client certificates of an authority that exists for this lab alone: without them, its
master would hand any local user the right to write, whatever its S3 side asks for.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

import requests

from lab.backends.embedded.services.certificates import Authority
from lab.client.s3 import REGION
from lab.config import Config
from lab.files import write_private
from lab.home.secrets import Secrets
from lab.layout import BUCKET, OWNER, STEPS
from lab.model import Port, Service
from lab.wait import NotYet

NAME = "seaweedfs"
GRPC_OFFSET = 10_000  # SeaweedFS derives the gRPC port of a part from its HTTP port
PARTS = ("master", "volume", "filer", "admin")
SOCKET_FOLDERS = {Path("/tmp"), Path(tempfile.gettempdir())}  # noqa: S108  its choice, not ours
# Where the wheel put the program, whatever PATH says.
PROGRAM = Path(sysconfig.get_path("scripts")) / "weed"


def service(config: Config, secrets: Secrets, ports: dict[str, int]) -> Service:
    """The S3 server on `ports["seaweedfs"]`; its data is in `.lab/data/seaweedfs`."""
    return Service(
        name=NAME,
        command=command(ports),
        folder=config.secrets / NAME,
        environment={"GOMEMLIMIT": "400MiB"},
        ready=lambda: answers(ports[NAME]),
        ports=listening(ports),
        prepare=lambda: prepare(config, secrets, ports),
    )


def port_names() -> tuple[str, ...]:
    """The ports to choose; each one and its gRPC companion must be free."""
    return (NAME, *(f"{NAME}-{part}" for part in PARTS))


def companions(ports: Mapping[str, int]) -> dict[str, int]:
    """The gRPC port that each of SeaweedFS's ports among `ports` brings along."""
    return {name: ports[name] + GRPC_OFFSET for name in port_names() if name in ports}


def command(ports: dict[str, int]) -> tuple[str, ...]:
    flags: dict[str, object] = {
        "dir": Path("..", "..", "data", NAME),  # relative: a comma would divide an absolute one
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


def listening(ports: dict[str, int]) -> tuple[Port, ...]:
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


def answers(port: int) -> None:
    """Raises NotYet until S3 refuses an unsigned request: it answers, and it asks for keys."""
    code = requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code
    if code != 403:
        raise NotYet(f"S3 answers {code} to an unsigned request")


def prepare(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Certificates and keys are in place, and no socket of a killed server is left."""
    folder = config.secrets / NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    (config.data / NAME).mkdir(mode=0o700, exist_ok=True)
    remove_sockets(ports)
    if not (folder / "security.toml").exists():
        write_certificates(folder)
        write_private(folder / "security.toml", security(folder, secrets))
    write_private(folder / "s3.json", json.dumps({"identities": identities(secrets)}))


def write_certificates(folder: Path) -> None:
    authority = Authority(f"{NAME} of one lab")
    write_private(folder / "authority.crt", authority.certificate())
    certificate, key = authority.issue(NAME)
    write_private(folder / "node.crt", certificate)
    write_private(folder / "node.key", key)


def identities(secrets: Secrets) -> list[dict[str, object]]:
    """The lab's own key, and the steps' key, which reaches one bucket only."""
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


def security(folder: Path, secrets: Secrets) -> str:
    """SeaweedFS's security.toml: signed file ids, mutual TLS on HTTP and on gRPC."""
    text = [
        f"[{section}]\nkey = {quoted(secrets.get('seaweedfs_' + section.replace('.', '_')))}"
        for section in (
            "jwt.signing",
            "jwt.signing.read",
            "jwt.filer_signing",
            "jwt.filer_signing.read",
        )
    ]
    authority = f"ca = {quoted(folder / 'authority.crt')}"
    pair = f"cert = {quoted(folder / 'node.crt')}\nkey = {quoted(folder / 'node.key')}"
    text.append(f"[grpc]\n{authority}")
    text += [f"[grpc.{part}]\n{pair}" for part in (*PARTS, "s3", "client", "worker", "msg_broker")]
    text.append(f"[https.client]\nenabled = true\n{pair}\n{authority}")
    text += [f"[https.{part}]\n{pair}\n{authority}" for part in PARTS]
    return "\n\n".join(text) + "\n"


def quoted(value: object) -> str:
    """A TOML string: JSON's escapes are a part of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)


def remove_sockets(ports: dict[str, int]) -> None:
    """The Unix sockets that SeaweedFS makes in the temporary folder are gone.

    It removes them itself unless it is killed; their names hold its ports.
    """
    for name in port_names():
        for number in (ports[name], ports[name] + GRPC_OFFSET):
            for folder in SOCKET_FOLDERS:
                for socket in folder.glob(f"seaweedfs-*-{number}.sock"):
                    with contextlib.suppress(OSError):
                        socket.unlink()


def step_environment(secrets: Secrets, ports: dict[str, int]) -> dict[str, str]:
    """What boto3 and DVC read: the same names as on a cluster; on EKS the endpoint is absent."""
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


def available() -> bool:
    """Whether the wheel's program is installed."""
    return shutil.which(PROGRAM) is not None
