"""The git server: git's own smart HTTP and a read-only web view, behind passwords."""

from __future__ import annotations

import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

from lab.backends.embedded.gitserver import announce, repositories
from lab.backends.embedded.gitserver.accounts import Account, Accounts, write_accounts
from lab.backends.embedded.gitserver.repositories import create_repository
from lab.client import git
from lab.config import Config
from lab.delivery import pushes, ssh, ssh_door
from lab.files import write_private_file
from lab.home.code import digest_code
from lab.home.secrets import Secrets
from lab.layout import READ, READER, REPOSITORIES, STEPS, TEAM_A, WRITE
from lab.model import Port, Service
from lab.shell import run
from lab.wait import expect_answer

NAME = "gitserver"
APPLICATION = "lab.backends.embedded.gitserver.app:from_environment"
# Airflow needs no notification of the pushes that its own runs make: the hook exits at once.
HOOK = """\
#!/bin/sh
# Written by `lab up`.
if test "$REMOTE_USER" = {steps}; then exit 0; fi
exec {command}
"""


def build_service(config: Config, secrets: Secrets, ports: dict[str, int]) -> Service:
    """Return the server on `ports["gitserver"]`, with its repositories in `.lab/data/gitserver`."""
    port = ports[NAME]
    flags = (
        "--factory",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-access-log",
        "--lifespan",
        "on",
    )
    return Service(
        name=NAME,
        command=(
            sys.executable,
            "-m",
            "uvicorn",
            APPLICATION,
            *flags,
        ),
        folder=config.data,
        environment={
            "GITSERVER_ROOT": str(config.data / NAME),
            "GITSERVER_ACCOUNTS": str(accounts_file(config)),
            **ssh_door.server_environment(config, ports),
        },
        ready=lambda: expect_answer(f"http://127.0.0.1:{port}/healthz"),
        ports=(
            Port(NAME, port, "a random password per account, asked for at each request"),
            *ssh_door.ssh_ports(ports),
        ),
        prepare=lambda: prepare(config, secrets, ports),
        code=partial(digest_code, config.kit),
    )


def accounts_file(config: Config) -> Path:
    return config.secrets / "gitserver-accounts.json"


def prepare(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Create repositories, accounts, SSH keys and hooks unless they exist.

    A revoked account or key stays revoked.
    """
    root = config.data / NAME
    root.mkdir(mode=0o700, exist_ok=True)
    for name in REPOSITORIES:
        create_repository(root, name)
    ensure_accounts(accounts_file(config), secrets)
    ssh_door.prepare_keys(config, TEAM_A)
    ensure_hooks(config, secrets, ports)


def ensure_accounts(path: Path, secrets: Secrets) -> None:
    """Write the accounts; if the file exists, only add missing rights to the accounts in it."""
    accounts = {name: build_account(secrets, name) for name in READ}
    if path.exists():
        known = Accounts(path).read_accounts()
        accounts = {n: one.with_rights_of(accounts.get(n, one)) for n, one in known.items()}
        if accounts == known:
            return
    write_accounts(path, accounts)


def ensure_hooks(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Install the hook that notifies Airflow of pushes in every repository."""
    root, secret = config.data / NAME, config.secrets / "push-secret"
    write_private_file(secret, pushes.push_secret(secrets))
    url = f"http://127.0.0.1:{ports[pushes.RECEIVER]}{pushes.PATH}"
    command = [sys.executable, "-I", "-S", announce.__file__, url, str(secret)]
    hook = HOOK.format(steps=STEPS, command=shlex.join(command))
    for name in repositories.list_names(root):
        repositories.ensure_hook(repositories.folder(root, name), hook)


def deliver_pending_pushes(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Notify Airflow, which must be running, of the pushes that it has missed."""
    ensure_hooks(config, secrets, ports)
    root = config.data / NAME
    for name in repositories.list_names(root):
        folder = repositories.folder(root, name)
        if has_pending_pushes(folder):
            hook = folder / "hooks" / "post-receive"
            seconds = 2 * announce.SECONDS
            said = run([hook], timeout=seconds, cwd=folder, env=repositories.git_environment())
            if has_pending_pushes(folder):
                print(f"  {name}: {said.strip()}")


def has_pending_pushes(repository: Path) -> bool:
    return any((repository / announce.PENDING).glob("*.json"))


def build_account(secrets: Secrets, name: str) -> Account:
    return Account.with_token(
        password(secrets, name), read=readable_repositories(name), write=WRITE[name]
    )


def readable_repositories(account: str) -> tuple[str, ...]:
    """Return what an account may read by HTTP: for Airflow more on a machine without SSH."""
    by_http = account == READER and not ssh.has_ssh_client()
    return (*READ[account], TEAM_A) if by_http else READ[account]


def password(secrets: Secrets, name: str) -> str:
    return secrets.get(f"git_{name}_password")


def airflow_connection(
    config: Config, secrets: Secrets, ports: dict[str, int], repository: str
) -> dict[str, object]:
    """Return Airflow's connection to a repository: to the other team's by SSH if possible."""
    if repository == TEAM_A and ssh_door.is_usable(ports):
        return ssh_door.airflow_connection(config, ports, repository)
    return git.airflow_connection(
        repository_url(ports, repository), READER, password(secrets, READER)
    )


def repository_url(ports: dict[str, int], repository: str) -> str:
    """Return a repository's URL, without credentials."""
    return f"http://127.0.0.1:{ports[NAME]}/{repository}.git"


def page_url(ports: dict[str, int], repository: str) -> str:
    """Return the URL of a repository's web page."""
    owner, _, name = repository.partition("/")
    return f"http://127.0.0.1:{ports[NAME]}/web/~{owner}/{name}/"


def has_object(config: Config, repository: str, name: str) -> bool:
    """Return whether a repository holds the object `name`, as in `main:path`; needs no server."""
    folder = config.data / NAME / f"{repository}.git"
    if not folder.is_dir():
        return False
    command = ["git", "--git-dir", str(folder), "cat-file", "-e", name]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
