"""Keys of SSH, and how a client is told which server it may trust. The same on every backend."""

from __future__ import annotations

import shutil
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab.files import locked, write_private

USER = "git"  # whom a git server expects, whoever comes
SERVER = "lab-git"  # what known_hosts calls the server, wherever it listens
CONFIG = """\
# Written by `lab up`. Nothing of the machine's or a person's own settings counts beside it.
Host *
  BatchMode yes
  ConnectTimeout 10
  ServerAliveInterval 10
  IdentitiesOnly yes
  HostKeyAlgorithms ssh-ed25519
  HostKeyAlias {server}
  CheckHostIP no
  StrictHostKeyChecking yes
  GlobalKnownHostsFile /dev/null
  UserKnownHostsFile "{known_hosts}"
"""


def available() -> bool:
    """Whether this machine has a client of SSH."""
    return shutil.which("ssh") is not None


def private(path: Path) -> str:
    """The private key at `path`, which only its owner reads; made when first asked for."""
    with locked(path.parent):
        if not path.exists():
            write_private(path, new())
        return path.read_text("ascii")


def new() -> str:
    """A new private key, as OpenSSH writes it."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode("ascii")


def public(private_key: str) -> str:
    """The public half of a private key: `ssh-ed25519 AAAA…`."""
    key = serialization.load_ssh_private_key(private_key.encode("ascii"), password=None)
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(encoding, form).decode("ascii")


def known_hosts(host_key: str) -> str:
    """The one server that a client may trust, by the public half of its key."""
    return f"{SERVER} {public(host_key)}\n"


def config(known_hosts_file: str | Path) -> str:
    """What a client has to be told by `ssh -F`."""
    return CONFIG.format(server=SERVER, known_hosts=known_hosts_file)


def connection(url: str, key_file: str | Path, config_file: str | Path) -> dict[str, object]:
    """Airflow's connection to a repository by a key. It holds no secret, only where one is.

    The key is named and not put into it: Airflow would write it to a file at each look.
    """
    extra = {
        "key_file": str(key_file),
        "ssh_config_file": str(config_file),
        "strict_host_key_checking": "yes",
    }
    return {"conn_type": "git", "host": url, "extra": extra}
