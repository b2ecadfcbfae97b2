"""The first dataset of a new lab: the user's file or directory, or the generated table."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.client import s3
from lab.config import Config
from lab.dataset import employees, inspection
from lab.dataset.inspection import Content, Shape
from lab.home import processes
from lab.home.state import State
from lab.model import Access
from lab.shell import run

FOLDER = "datasets"  # in the repository, as in the article that this lab started from
MOST_TOLD = 5  # directories
SECONDS = 1800  # 1 GB takes less than a minute


def repository_path(source: Path) -> str:
    """Return the path in the repository of the user's file or directory."""
    return f"{FOLDER}/{source.name}"


def source_file(config: Config, known: State) -> Path:
    """Return the path of the user's data, or of the generated table."""
    return Path(known.dataset_source) if known.dataset_source else generated_file(config)


def generated_file(config: Config) -> Path:
    return config.data / "dataset" / employees.EMPLOYEES_NAME


def prepare_dataset(config: Config, known: State) -> None:
    """Write the generated dataset to its file unless the user gave data."""
    if not known.dataset_source:
        generated_file(config).parent.mkdir(mode=0o700, exist_ok=True)
        employees.write_employees(generated_file(config))


def import_environment(config: Config, access: Access) -> dict[str, str]:
    """Return the import step's environment: the step contract, with this machine's access."""
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


def publish_dataset(config: Config, known: State, environment: Mapping[str, str]) -> None:
    """Import the dataset: upload it to the bucket and commit its pointer. Raises LabError.

    `environment` is the step contract with credentials. The step sees nothing else but its run's
    variables.
    """
    file = source_file(config, known)
    if known.dataset_source:  # it may have changed since `up` began
        tell_empty_directories(inspection.inspect(file))
    run(
        [sys.executable, "-P", "-m", "dataset_steps", "import", file.absolute()],
        timeout=SECONDS,
        fix="lab status, lab logs; then lab up again",
        env={
            **environment,
            "DAG_ID": "lab",
            "RUN_ID": "import",
            processes.MARK: str(config.home),  # so that `lab down` ends it if this command dies
        },
    )
    shutil.rmtree(generated_file(config).parent, ignore_errors=True)


def tell_empty_directories(found: Shape | Content) -> None:
    """Print which directories are left out of the dataset: DVC keeps files only."""
    if isinstance(found, Content) and found.empty:
        shown = ", ".join(found.empty[:MOST_TOLD])
        more = len(found.empty) - MOST_TOLD
        rest = f" and {more} more" if more > 0 else ""
        print(f"  left out, as DVC keeps no empty directory: {shown}{rest}")
