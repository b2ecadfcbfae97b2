"""The git server: git's own smart HTTP and a read-only web view, behind passwords."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import requests

from lab.config import Config
from lab.gitserver.accounts import Account, write_accounts
from lab.gitserver.repositories import create
from lab.model import Port, Service
from lab.state import Secrets
from lab.wait import NotYet

NAME = "gitserver"
PIPELINES, DATASETS = "lab/pipelines", "lab/datasets"
# Who may do what. The steps can't touch the DAGs, and Airflow can't write anything.
OWNER, STEPS, AIRFLOW = "lab", "steps", "airflow"
READ = {OWNER: (PIPELINES, DATASETS), STEPS: (DATASETS,), AIRFLOW: (PIPELINES,)}
WRITE = {OWNER: (PIPELINES, DATASETS), STEPS: (DATASETS,), AIRFLOW: ()}


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
        command=(sys.executable, "-m", "uvicorn", "lab.gitserver.app:from_environment", *flags),
        folder=config.data,
        environment={
            "GITSERVER_ROOT": str(config.data / NAME),
            "GITSERVER_ACCOUNTS": str(accounts_file(config)),
        },
        ready=lambda: answers(port),
        ports=(Port(NAME, port, "a random password per account, asked for at each request"),),
        prepare=lambda: prepare(config, secrets),
    )


def accounts_file(config: Config) -> Path:
    return config.secrets / "gitserver-accounts.json"


def answers(port: int) -> None:
    code = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code
    if code != 200:
        raise NotYet(f"/healthz answers {code}")


def prepare(config: Config, secrets: Secrets) -> None:
    """Both repositories are there, and the accounts; one that was revoked stays revoked."""
    root = config.data / NAME
    root.mkdir(mode=0o700, exist_ok=True)
    for name in (PIPELINES, DATASETS):
        create(root, name)
    path = accounts_file(config)
    if not path.exists():
        write_accounts(path, {name: account(secrets, name) for name in READ})


def account(secrets: Secrets, name: str) -> Account:
    digest = hashlib.sha256(password(secrets, name).encode()).hexdigest()
    return Account(sha256=digest, read=READ[name], write=WRITE[name])


def password(secrets: Secrets, name: str) -> str:
    return secrets.get(f"git_{name}_password")


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
