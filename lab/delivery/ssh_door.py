"""The git server's SSH door: its keys, and how Airflow comes in by one.

Where the machine has no client of SSH, Airflow reads the same repository by HTTP.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab.config import Config
from lab.delivery import ssh
from lab.files import write_private
from lab.model import Port

NAME = "gitserver-ssh"  # the name of its port
PROTECTION = "a key made for this lab, which opens one repository for reading"


def host_key(config: Config) -> Path:
    return config.secrets / "ssh-host.key"


def deploy_key(config: Config) -> Path:
    return config.secrets / "team-a.key"


def deploy_keys(config: Config) -> Path:
    """The file that says which key opens what."""
    return config.secrets / "deploy-keys.json"


def client_config(config: Config) -> Path:
    return config.secrets / "ssh-config"


def prepare(config: Config, repository: str) -> None:
    """The keys are there, and the files by which both sides know each other.

    A key that was taken out of the file of deploy keys stays out.
    """
    host, own = ssh.private(host_key(config)), ssh.private(deploy_key(config))
    if not deploy_keys(config).exists():
        write_private(deploy_keys(config), json.dumps({repository: [ssh.public(own)]}))
    known_hosts = config.secrets / "known-hosts"
    write_private(known_hosts, ssh.known_hosts(host))
    write_private(client_config(config), ssh.config(known_hosts))


def environment(config: Config, ports: dict[str, int]) -> dict[str, str]:
    """What makes the git server open the door; nothing for a lab that has no port for it yet."""
    if NAME not in ports:
        return {}
    return {
        "GITSERVER_SSH_PORT": str(ports[NAME]),
        "GITSERVER_SSH_HOST_KEY": str(host_key(config)),
        "GITSERVER_DEPLOY_KEYS": str(deploy_keys(config)),
    }


def listening(ports: dict[str, int]) -> tuple[Port, ...]:
    return (Port(NAME, ports[NAME], PROTECTION),) if NAME in ports else ()


def usable(ports: dict[str, int]) -> bool:
    """Whether Airflow can come in by it."""
    return NAME in ports and ssh.available()


def connection(config: Config, ports: dict[str, int], repository: str) -> dict[str, object]:
    """How Airflow reads the repository by the key."""
    url = f"ssh://{ssh.USER}@127.0.0.1:{ports[NAME]}/{repository}.git"
    return ssh.connection(url, deploy_key(config), client_config(config))
