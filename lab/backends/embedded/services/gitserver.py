"""The git server: git's own smart HTTP and a read-only web view, behind passwords."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import requests

from lab.backends.embedded.gitserver import announce, repositories
from lab.backends.embedded.gitserver.accounts import Account, Accounts, write_accounts
from lab.backends.embedded.gitserver.repositories import create
from lab.client import git
from lab.config import Config
from lab.delivery import pushes, ssh, ssh_door
from lab.files import write_private
from lab.home.secrets import Secrets
from lab.layout import READ, READER, REPOSITORIES, STEPS, TEAM_A, WRITE
from lab.model import Port, Service
from lab.shell import run
from lab.wait import NotYet

NAME = "gitserver"
APPLICATION = "lab.backends.embedded.gitserver.app:from_environment"
# What runs have made is no news: the hook ends at once.
HOOK = """\
#!/bin/sh
# Written by `lab up`.
if test "$REMOTE_USER" = {steps}; then exit 0; fi
exec {command}
"""


def service(config: Config, secrets: Secrets, ports: dict[str, int]) -> Service:
    """The git server on `ports["gitserver"]`; its repositories are in `.lab/data/gitserver`."""
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
            **ssh_door.environment(config, ports),
        },
        ready=lambda: answers(port),
        ports=(
            Port(NAME, port, "a random password per account, asked for at each request"),
            *ssh_door.listening(ports),
        ),
        prepare=lambda: prepare(config, secrets, ports),
    )


def accounts_file(config: Config) -> Path:
    return config.secrets / "gitserver-accounts.json"


def answers(port: int) -> None:
    code = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code
    if code != 200:
        raise NotYet(f"/healthz answers {code}")


def prepare(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """All repositories are there, and who may come in; who was revoked stays revoked."""
    root = config.data / NAME
    root.mkdir(mode=0o700, exist_ok=True)
    for name in REPOSITORIES:
        create(root, name)
    provide_accounts(accounts_file(config), secrets)
    ssh_door.prepare(config, TEAM_A)
    provide_hooks(config, secrets, ports)


def provide_accounts(path: Path, secrets: Secrets) -> None:
    """The accounts are there, or those that are left of them, with their rights at least."""
    accounts = {name: account(secrets, name) for name in READ}
    if path.exists():
        known = Accounts(path).known()
        accounts = {n: one.extended_by(accounts.get(n, one)) for n, one in known.items()}
        if accounts == known:
            return
    write_accounts(path, accounts)


def provide_hooks(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Each repository tells Airflow of the pushes to it."""
    root, secret = config.data / NAME, config.secrets / "push-secret"
    write_private(secret, pushes.secret(secrets))
    url = f"http://127.0.0.1:{ports[pushes.RECEIVER]}{pushes.PATH}"
    command = [sys.executable, "-I", "-S", announce.__file__, url, str(secret)]
    hook = HOOK.format(steps=STEPS, command=shlex.join(command))
    for name in repositories.existing(root):
        repositories.provide_hook(repositories.folder(root, name), hook)


def tell_the_untold(config: Config, secrets: Secrets, ports: dict[str, int]) -> None:
    """Airflow, which answers, knows of the pushes that it has missed."""
    provide_hooks(config, secrets, ports)
    root = config.data / NAME
    for name in repositories.existing(root):
        place = repositories.folder(root, name)
        if untold(place):
            hook = place / "hooks" / "post-receive"
            seconds = 2 * announce.SECONDS
            said = run([hook], timeout=seconds, cwd=place, env=repositories.git_environment())
            if untold(place):
                print(f"  {name}: {said.strip()}")


def untold(repository: Path) -> bool:
    return any((repository / announce.UNTOLD).glob("*.json"))


def account(secrets: Secrets, name: str) -> Account:
    return Account.with_token(password(secrets, name), read=readable(name), write=WRITE[name])


def readable(account: str) -> tuple[str, ...]:
    """What an account may read by HTTP: Airflow more where it can't come by SSH."""
    by_http = account == READER and not ssh.available()
    return (*READ[account], TEAM_A) if by_http else READ[account]


def password(secrets: Secrets, name: str) -> str:
    return secrets.get(f"git_{name}_password")


def connection(
    config: Config, secrets: Secrets, ports: dict[str, int], repository: str
) -> dict[str, object]:
    """How Airflow reads a repository: the other team's by SSH where that can be."""
    if repository == TEAM_A and ssh_door.usable(ports):
        return ssh_door.connection(config, ports, repository)
    return git.connection(url(ports, repository), READER, password(secrets, READER))


def url(ports: dict[str, int], repository: str) -> str:
    """Where a repository is; no credentials in it."""
    return f"http://127.0.0.1:{ports[NAME]}/{repository}.git"


def page(ports: dict[str, int], repository: str) -> str:
    """Where a person reads a repository's commits."""
    owner, _, name = repository.partition("/")
    return f"http://127.0.0.1:{ports[NAME]}/web/~{owner}/{name}/"


def has_object(config: Config, repository: str, name: str) -> bool:
    """Whether a repository holds the object `name`, as in `main:path`; asks no server."""
    folder = config.data / NAME / f"{repository}.git"
    if not folder.is_dir():
        return False
    command = ["git", "--git-dir", str(folder), "cat-file", "-e", name]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
