"""The first versions of a new lab's data sets: files and directories, or the generated table."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.client import s3
from lab.config import Config
from lab.dataset import employees, inspection
from lab.dataset.inspection import Content, Shape
from lab.home import processes
from lab.home.state import State
from lab.model import Access
from lab.project import FILE, KIT_DATA, Declaration, Project
from lab.shell import run

FOLDER = "datasets"  # in the repository, as in the article that this lab started from
MOST_TOLD = 5  # directories
SECONDS = 1800  # 1 GB takes less than a minute


@dataclass(frozen=True)
class First:
    """A first version: its data set, that one's path in the repository, and where the data is."""

    name: str
    path: str
    source: Path
    is_given: bool  # else it is the generated table


def choose_path(config: Config) -> str:
    """Return the path in the repository of a new lab's main data set."""
    project = config.project
    if config.dataset:
        return repository_path(config.dataset)
    return project.data[project.main].path


def repository_path(source: Path) -> str:
    """Return the path in the repository of the user's file or directory."""
    return f"{FOLDER}/{source.name}"


def list_first_versions(config: Config, known: State) -> list[First]:
    """List the first versions that the lab begins with, the main data set's first."""
    project = config.project
    chosen = {project.main: Declaration(known.dataset_path, project.data[project.main].first)}
    if known.dataset_source:
        chosen[project.main] = Declaration(known.dataset_path, known.dataset_source)
    declared = {**project.data, **chosen}
    return [
        find_source(config, name, each.path, each.first)
        for name, each in declared.items()
        if each.first
    ]


def find_source(config: Config, name: str, path: str, first: str) -> First:
    """Return a first version with the path of its data on this machine."""
    if first == KIT_DATA:
        return First(name, path, generated_file(config), is_given=False)
    return First(name, path, config.root / first, is_given=True)


def refuse_unfit(project: Project) -> None:
    """Raise the DatasetError of the first declared data that DVC could not keep, or is not there.

    What is no table to the steps is taken as it is.
    """
    for name, each in project.data.items():
        if each.first and each.first != KIT_DATA:
            source = project.root / each.first
            inspection.inspect_content(source, f"correct `first` of [data.{name}] in {FILE}")


def generated_file(config: Config) -> Path:
    return config.data / "dataset" / employees.EMPLOYEES_NAME


def prepare_data(first: First) -> None:
    """Write the generated table to its file, if that is the data and it is not there."""
    if not first.is_given and not first.source.exists():
        first.source.parent.mkdir(mode=0o700, exist_ok=True)
        employees.write_employees(first.source)


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


def publish_data(config: Config, first: First, environment: Mapping[str, str]) -> None:
    """Import a first version: upload it to the bucket and commit its pointer. Raises LabError.

    `environment` is the step contract with credentials. The step sees nothing else but its run's
    variables.
    """
    prepare_data(first)
    if first.is_given:  # it may have changed since `up` began
        tell_empty_directories(inspection.inspect_content(first.source))
    named = {"DATASET_NAME": first.name, "DATASET_PATH": first.path}
    run_step(config, {**environment, **named}, "import", first.source.absolute())
    if not first.is_given:
        shutil.rmtree(first.source.parent, ignore_errors=True)


def begin_repository(config: Config, environment: Mapping[str, str]) -> None:
    """Commit DVC's configuration to a datasets repository that has none. Raises LabError."""
    run_step(config, environment, "begin")


def run_step(config: Config, environment: Mapping[str, str], *words: str | Path) -> None:
    """Run a step of this machine's own. Raises LabError when it fails."""
    run(
        [sys.executable, "-P", "-m", "dataset_steps", *words],
        timeout=SECONDS,
        fix="lab status, lab logs; then lab up again",
        env={
            **environment,
            "DAG_ID": "lab",
            "RUN_ID": "import",
            processes.MARK: str(config.home),  # so that `lab down` ends it if this command dies
        },
    )


def tell_empty_directories(found: Shape | Content) -> None:
    """Print which directories are left out of the dataset: DVC keeps files only."""
    if isinstance(found, Content) and found.empty:
        shown = ", ".join(found.empty[:MOST_TOLD])
        more = len(found.empty) - MOST_TOLD
        rest = f" and {more} more" if more > 0 else ""
        print(f"  left out, as DVC keeps no empty directory: {shown}{rest}")
