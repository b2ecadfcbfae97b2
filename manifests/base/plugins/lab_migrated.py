"""Migrate Airflow's tables, or wait for it: `lab_migrated.py migrate | wait VERSION`.

A job migrates and says when it is done; each pod's init container waits for that. Airflow's own
command for waiting imports all of Airflow, in four pods at once: 11 s of CPU while nothing else can
start.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import psycopg2  # type: ignore[import-untyped]  # Airflow's image has it, the lab has not
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

SECONDS = 300  # that a pod waits; Kubernetes starts it anew then
PAUSE = 0.5
URL = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
# One row for each version whose migration has ended.
CREATE = "CREATE TABLE IF NOT EXISTS lab_migrated (version text PRIMARY KEY)"
RECORD = "INSERT INTO lab_migrated VALUES (%s) ON CONFLICT DO NOTHING"
FIND = "SELECT 1 FROM lab_migrated WHERE version = %s"


def connect() -> Any:
    """Return a connection to the database, with the password of PGPASSWORD if the URL has none."""
    parts = urlsplit(os.environ[URL])
    return psycopg2.connect(parts._replace(scheme="postgresql").geturl())


def migrate(version: str) -> None:
    """Migrate the tables, write that down, and create the account of LOGIN_USER to log in with.

    One Python does it all: importing Airflow is most of the time. Airflow reads the password from
    standard input, twice.
    """
    from airflow.__main__ import main as run_airflow

    def run(*words: str) -> None:
        sys.argv = ["airflow", *words]
        run_airflow()

    run("db", "migrate")
    record(version)
    sys.stdin = io.StringIO(f"{os.environ['LOGIN_PASSWORD']}\n" * 2)
    about = ("--email", "lab@localhost", "--firstname", "mlops", "--lastname", "lab")
    run("users", "create", "--role", "Admin", "--username", os.environ["LOGIN_USER"], *about)


def record(version: str) -> None:
    """Write down that the tables are those of this version."""
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(CREATE)
        cursor.execute(RECORD, (version,))


def is_migrated(version: str) -> bool:
    """Return whether that was written down; False also while the database does not answer."""
    try:
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute(FIND, (version,))
            return cursor.fetchone() is not None
    except psycopg2.Error:
        return False


def wait(version: str) -> None:
    """Wait until that is written down. Exit with 1 after SECONDS."""
    retrying = Retrying(
        retry=retry_if_result(lambda done: not done),
        stop=stop_after_delay(SECONDS),
        wait=wait_fixed(PAUSE),
    )
    try:
        retrying(is_migrated, version)
    except RetryError:
        sys.exit(f"the tables are not those of Airflow {version} after {SECONDS} s")


if __name__ == "__main__":
    {"wait": wait, "migrate": migrate}[sys.argv[1]](sys.argv[2])
