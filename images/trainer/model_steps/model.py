"""The model: where it and its files are, how it is written and read, and its records."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dataset_steps.errors import StepError
from dataset_steps.files import atomic_write, md5_of
from dataset_steps.workspace import Workspace
from model_steps import schema
from model_steps.schema import Schema

Record = TypeVar("Record")

LONGEST = 300  # characters of Python's error for a file that can't be read
NAME = "model"  # the data set, which the DAGs' data.toml declares
# In the repository, where git keeps them itself.
METRICS = "models/attrition.metrics.json"
SCHEMA = "models/attrition.schema.json"


@dataclass(frozen=True)
class Prepared:
    """The data that a run trains on: the dataset's version, and the number of records per part."""

    data_commit: str
    data_md5: str
    training: int
    held_out: int


@dataclass(frozen=True)
class Trained:
    """The model that a run has trained."""

    md5: str
    size: int  # bytes


def read_prepared(workspace: Workspace) -> Prepared:
    """Return the record of what the run prepared. Raise StepError unless that step is complete."""
    return require_record(workspace.read_record("prepared", Prepared), "prepare_features")


def read_trained(workspace: Workspace) -> Trained:
    """Return the record of the trained model. Raise StepError unless that step is complete."""
    return require_record(workspace.read_record("trained", Trained), "train_model")


def require_record(record: Record | None, task: str) -> Record:
    if record is None:
        raise StepError(f"this run's workspace has nothing of {task}: run that task first")
    return record


def read_schema(workspace: Workspace) -> Schema:
    """Return the schema of the data that this run has prepared."""
    return require_record(schema.read(schema_file(workspace)), "prepare_features")


def model_file(workspace: Workspace) -> Path:
    """Return the model's file in the run's clone, where it is published from. Raise StepError."""
    return workspace.place(NAME)


def metrics_file(workspace: Workspace) -> Path:
    return workspace.repository / METRICS


def forget_metrics(workspace: Workspace) -> None:
    """Remove the metrics from the clone, where those of another model may be.

    A model that was not validated has none, so it is not published.
    """
    metrics_file(workspace).unlink(missing_ok=True)


def schema_file(workspace: Workspace) -> Path:
    return workspace.root / "schema.json"


def part_file(workspace: Workspace, name: str) -> Path:
    """Return the file with the records of one part."""
    return workspace.root / f"{name}.csv"


def dump(pipeline: Any, path: Path) -> Trained:
    """Write the trained pipeline to `path`, atomically."""
    import joblib  # takes a second with scikit-learn, which steps without a model don't need

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        joblib.dump(pipeline, file)
    return Trained(md5_of(path), path.stat().st_size)


def verify_model(workspace: Workspace) -> Trained:
    """Return the record of the trained model. Raise StepError when its file is another one."""
    record, path = read_trained(workspace), model_file(workspace)
    if not is_intact(path, record):
        raise StepError(
            f"the model {path} is not the one that was trained (MD5 {record.md5}): it was changed "
            "or lost since; clear train_model to make it anew"
        )
    return record


def is_intact(path: Path, record: Trained | None) -> bool:
    """Return whether the file holds the recorded model."""
    return record is not None and path.exists() and md5_of(path) == record.md5


def load(workspace: Workspace) -> Any:
    """Return the trained pipeline. Raise StepError when its file can't be read.

    Its bytes are verified first: loading such a file executes code in it.
    """
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    verify_model(workspace)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(model_file(workspace))
    except Exception as error:  # unpickling can raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
        raise StepError(
            f"the model {model_file(workspace)} can't be read "
            f"(clear train_model to make it anew): {what}"
        ) from error
