"""The dataset that a new lab begins with: a person's CSV, or a generated one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.client import s3
from lab.config import Config
from lab.dataset import employees, inspection
from lab.home import processes
from lab.home.state import State
from lab.model import Access
from lab.shell import run

FOLDER = "datasets"  # the folder in the repository, as in the article this lab began with
SECONDS = 1800  # 1 GB takes less than a minute


def path_of(source: Path) -> str:
    """Where a CSV is kept in the repository."""
    return f"{FOLDER}/{source.name}"


def source(config: Config, known: State) -> Path:
    """The CSV: the one that a person brought, or the generated one."""
    return Path(known.dataset_source) if known.dataset_source else generated(config)


def generated(config: Config) -> Path:
    return config.data / "dataset" / employees.EMPLOYEES_NAME


def prepare(config: Config, known: State) -> None:
    """The generated dataset is in a file, unless a person brought one."""
    if not known.dataset_source:
        generated(config).parent.mkdir(mode=0o700, exist_ok=True)
        employees.write_employees(generated(config))


def environment(config: Config, access: Access) -> dict[str, str]:
    """What the import sees of servers that this machine reaches: the contract, by this access."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(config.shared),  # no ~/.aws, no ~/.gitconfig
        **s3.environment(access),
        "S3_BUCKET": access.s3_bucket,
        "GIT_URL": access.git_url,
        "GIT_SYNC_USERNAME": access.git_user,
        "GIT_SYNC_PASSWORD": access.git_password,
        "DATASET_PATH": access.dataset_path,
        "SHARED_DIR": str(config.shared),
    }


def publish(config: Config, known: State, environment: Mapping[str, str]) -> None:
    """The dataset is in the bucket, and a commit names it. Raises LabError.

    `environment` is all that the step sees beside its run: the contract, with credentials.
    """
    file = source(config, known)
    inspection.inspect(file)
    run(
        [sys.executable, "-m", "dataset_steps", "import", file.absolute()],
        timeout=SECONDS,
        fix="lab status, lab logs; then lab up again",
        env={
            **environment,
            "DAG_ID": "lab",
            "RUN_ID": "import",
            processes.MARK: str(config.home),  # `lab down` ends it, should this command die
        },
    )
    shutil.rmtree(generated(config).parent, ignore_errors=True)
