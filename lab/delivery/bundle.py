"""The folder of DAGs as Airflow gets it: a project's own, and beside them the kit's DAG library.

So a run is pinned to the library, too. `declared.json` tells it what lab.toml declares.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from lab.config import PACKAGE, Config
from lab.errors import LabError, ProjectError
from lab.project import Project

LIBRARY = PACKAGE / "delivery" / "library"
FOLDER = "dags"  # in a project, in the kit, and in each repository of pipelines
DECLARED = "declared.json"
IGNORED = ".airflowignore"
DAG_WORDS = re.compile(r"\bDAG\(|@dag\b")  # in a file that declares DAGs
NOT_DAGS = shutil.ignore_patterns("__pycache__", "*.pyc", ".[!a]*")  # keeps .airflowignore


def write_bundle(config: Config, target: Path) -> None:
    """Replace `target` by the DAGs of the project, with the library and what it has to know.

    Raises ProjectError when a file of the project would be replaced by one of the kit's.
    """
    refuse_taken_names(config)
    shutil.rmtree(target, ignore_errors=True)
    for source in list_sources(config):
        copy_folder(source, target)
    ignored = [read_ignored(source) for source in list_sources(config)]
    (target / IGNORED).write_text("".join(ignored), "utf-8")
    (target / DECLARED).write_text(describe_project(config.project), "utf-8")


def write_elsewhere(config: Config, target: Path) -> None:
    """Write the bundle to a folder of the person's: a clone's `dags`, or one that is new or empty.

    Raises LabError for any other one: what is in it would be lost.
    """
    if target.is_relative_to(config.root) or config.root.is_relative_to(target):
        raise LabError(f"{target} is in this project, or around it", f"give CLONE/{FOLDER}")
    if target.name != FOLDER and target.exists() and (target.is_file() or any(target.iterdir())):
        raise LabError(f"{target} is not empty", f"give CLONE/{FOLDER}, whose content is replaced")
    write_bundle(config, target)


def list_sources(config: Config) -> list[Path]:
    """List the folders that a bundle is made of: the library, the samples if asked for, the DAGs.

    Raises ProjectError when the project has no folder of DAGs.
    """
    project = config.project
    if not project.dags.is_dir():
        raise ProjectError(
            f"{project.root} has no folder {FOLDER}/", "make one: its files declare the DAGs"
        )
    with_samples = project.samples and project.root != config.kit
    samples = [config.kit / FOLDER] if with_samples else []
    return [LIBRARY, *samples, project.dags]


def refuse_taken_names(config: Config) -> None:
    """Raise ProjectError when two of a bundle's folders have a file or folder of one name."""
    *others, own = list_sources(config)
    taken = {DECLARED}.union(*(list_names(folder) for folder in others))
    if names := sorted(taken & list_names(own)):
        raise ProjectError(
            f"{FOLDER}/{names[0]} has the name of a file that the kit delivers beside the DAGs",
            f"call it otherwise; taken are {', '.join(sorted(taken))}",
        )


def list_names(folder: Path) -> set[str]:
    """List the names of what a folder delivers, but for the list of what holds no DAG."""
    names = {path.name for path in folder.iterdir()} - {IGNORED}
    return names - NOT_DAGS(str(folder), list(names))


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder into another one, without bytecode and files that NOT_DAGS names."""
    shutil.copytree(
        source, target, ignore=NOT_DAGS, copy_function=shutil.copyfile, dirs_exist_ok=True
    )


def read_ignored(folder: Path) -> str:
    """Return a folder's list of files that hold no DAG, ended by a line break."""
    file = folder / IGNORED
    text = file.read_text("utf-8") if file.exists() else ""
    return f"{text}\n" if text and not text.endswith("\n") else text


def describe_project(project: Project) -> str:
    """Return what lab.toml declares as the library reads it: JSON."""
    images = {name: {"memory": image.memory} for name, image in project.images.items()}
    declared = {"main": project.main, "data": project.paths, "images": images}
    return json.dumps(declared, indent=1) + "\n"


def find_dag_files(config: Config) -> list[str]:
    """List the files of a bundle that declare DAGs, as sorted paths relative to it."""
    return sorted(name for source in list_sources(config)[1:] for name in list_dag_files(source))


def list_dag_files(source: Path) -> list[str]:
    """List the files of a folder that declare DAGs, as paths relative to it."""
    found = (
        path
        for path in source.rglob("*.py")
        if DAG_WORDS.search(path.read_text("utf-8", "replace"))
    )
    return sorted(path.relative_to(source).as_posix() for path in found)
