"""SSH keys and the client files that say which server to trust. The same on every backend."""

from __future__ import annotations

import shutil
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab.files import folder_lock, write_private_file

USER = "git"  # the login name that git servers use for every key
SERVER = "lab-git"  # the server's name in known_hosts, wherever it listens
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


def has_ssh_client() -> bool:
    """Return whether this machine has an SSH client."""
    return shutil.which("ssh") is not None


def ensure_private_key(path: Path) -> str:
    """Return the private key at `path`; generate it, readable by its owner only, if missing."""
    with folder_lock(path.parent):
        if not path.exists():
            write_private_file(path, generate_private_key())
        return path.read_text("ascii")


def generate_private_key() -> str:
    """Generate an Ed25519 key and return it in OpenSSH's format."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode("ascii")


def public_key(private_key: str) -> str:
    """Return the public half of a private key: `ssh-ed25519 AAAA…`."""
    key = serialization.load_ssh_private_key(private_key.encode("ascii"), password=None)
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(encoding, form).decode("ascii")


def known_hosts_line(host_key: str) -> str:
    """Return the known_hosts line of the one server that a client may trust."""
    return f"{SERVER} {public_key(host_key)}\n"


def client_config(known_hosts_file: str | Path) -> str:
    """Return the text of the file for `ssh -F`."""
    return CONFIG.format(server=SERVER, known_hosts=known_hosts_file)


def airflow_connection(
    url: str, key_file: str | Path, config_file: str | Path
) -> dict[str, object]:
    """Return Airflow's connection to a repository by SSH. It holds no secret, only the key's path.

    With the key itself in it, Airflow would write the key to a file at each refresh.
    """
    extra = {
        "key_file": str(key_file),
        "ssh_config_file": str(config_file),
        "strict_host_key_checking": "yes",
    }
    return {"conn_type": "git", "host": url, "extra": extra}
