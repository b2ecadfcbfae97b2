"""The git server's SSH endpoint: its keys, and Airflow's connection by one of them.

On a machine without an SSH client, Airflow reads the same repository by HTTP.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab.config import Config
from lab.delivery import ssh
from lab.files import write_private_file
from lab.model import Port

NAME = "gitserver-ssh"  # the name of its port
PROTECTION = "a key made for this lab, which opens one repository for reading"


def host_key_file(config: Config) -> Path:
    return config.secrets / "ssh-host.key"


def deploy_key_file(config: Config) -> Path:
    return config.secrets / "team-a.key"


def deploy_keys_file(config: Config) -> Path:
    """Return the path of the JSON file that lists each repository's deploy keys."""
    return config.secrets / "deploy-keys.json"


def client_config_file(config: Config) -> Path:
    return config.secrets / "ssh-config"


def prepare_keys(config: Config, repository: str) -> None:
    """Create the keys unless they exist; write known_hosts and the client's configuration.

    A key that was removed from the file of deploy keys stays removed.
    """
    host = ssh.ensure_private_key(host_key_file(config))
    own = ssh.ensure_private_key(deploy_key_file(config))
    if not deploy_keys_file(config).exists():
        write_private_file(
            deploy_keys_file(config), json.dumps({repository: [ssh.public_key(own)]})
        )
    known_hosts = config.secrets / "known-hosts"
    write_private_file(known_hosts, ssh.known_hosts_line(host))
    write_private_file(client_config_file(config), ssh.client_config(known_hosts))


def server_environment(config: Config, ports: dict[str, int]) -> dict[str, str]:
    """Return the git server's variables that switch SSH on; none if the lab has no port for it."""
    if NAME not in ports:
        return {}
    return {
        "GITSERVER_SSH_PORT": str(ports[NAME]),
        "GITSERVER_SSH_HOST_KEY": str(host_key_file(config)),
        "GITSERVER_DEPLOY_KEYS": str(deploy_keys_file(config)),
    }


def ssh_ports(ports: dict[str, int]) -> tuple[Port, ...]:
    return (Port(NAME, ports[NAME], PROTECTION),) if NAME in ports else ()


def is_usable(ports: dict[str, int]) -> bool:
    """Return whether Airflow can connect by SSH."""
    return NAME in ports and ssh.has_ssh_client()


def airflow_connection(config: Config, ports: dict[str, int], repository: str) -> dict[str, object]:
    """Return Airflow's connection to the repository by SSH."""
    url = f"ssh://{ssh.USER}@127.0.0.1:{ports[NAME]}/{repository}.git"
    return ssh.airflow_connection(url, deploy_key_file(config), client_config_file(config))
