"""Where a model is kept, in a run's workspace and in the repository; its file, and its records."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dataset_steps.errors import StepError
from dataset_steps.files import md5_of, whole
from dataset_steps.pointer import Pointer
from dataset_steps.workspace import Workspace
from model_steps import schema
from model_steps.schema import Schema

Record = TypeVar("Record")

LONGEST = 300  # characters of what Python says of a file that it can't read
# In the repository.
MODEL = "models/attrition.joblib"
METRICS = "models/attrition.metrics.json"
SCHEMA = "models/attrition.schema.json"


@dataclass(frozen=True)
class Prepared:
    """The data that a run trains on: which version of the dataset it is, and its parts' records."""

    data_commit: str
    data_md5: str
    training: int
    held_out: int


@dataclass(frozen=True)
class Trained:
    """The model that a run has trained."""

    md5: str
    size: int  # bytes

    @property
    def pointer(self) -> Pointer:
        return Pointer(self.md5, self.size)


@dataclass(frozen=True)
class Validated:
    """The model that was held against the threshold, and the metrics that it has."""

    md5: str
    metrics: dict[str, float]


def prepared(workspace: Workspace) -> Prepared:
    """What this run has prepared. Raises StepError when that step has not come to its end."""
    return done(workspace.recorded("prepared", Prepared), "prepare_features")


def trained(workspace: Workspace) -> Trained:
    """What this run has trained. Raises StepError, as above."""
    return done(workspace.recorded("trained", Trained), "train_model")


def validated(workspace: Workspace) -> Validated:
    """What this run has validated. Raises StepError, as above."""
    return done(workspace.recorded("validated", Validated), "validate_model")


def done(record: Record | None, task: str) -> Record:
    if record is None:
        raise StepError(f"this run's workspace has nothing of {task}: run that task first")
    return record


def known_schema(workspace: Workspace) -> Schema:
    """The schema of the data that this run has prepared."""
    return done(schema.read(schema_file(workspace)), "prepare_features")


def file(workspace: Workspace) -> Path:
    return workspace.root / "model.joblib"


def schema_file(workspace: Workspace) -> Path:
    return workspace.root / "schema.json"


def part(workspace: Workspace, name: str) -> Path:
    """The file with the records of one part."""
    return workspace.root / f"{name}.csv"


def dump(pipeline: Any, path: Path) -> Trained:
    """`path` holds the trained pipeline, whole."""
    import joblib  # with scikit-learn a second's work, which steps without a model are spared

    with whole(path) as file:
        joblib.dump(pipeline, file)
    return Trained(md5_of(path), path.stat().st_size)


def proven(workspace: Workspace) -> Trained:
    """The model's file is the one that was trained. Raises StepError."""
    record, path = trained(workspace), file(workspace)
    if not is_there(path, record):
        raise StepError(
            f"the model {path} is not the one that was trained (MD5 {record.md5}): it was changed "
            "or lost since; clear train_model to make it anew"
        )
    return record


def is_there(path: Path, record: Trained | None) -> bool:
    """Whether the file holds the model that the record is about."""
    return record is not None and path.exists() and md5_of(path) == record.md5


def load(workspace: Workspace) -> Any:
    """The trained pipeline. Raises StepError when its file can't be read.

    Its bytes are compared first: to load a file of this kind is to run what it says.
    """
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    proven(workspace)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(file(workspace))
    except Exception as error:  # whatever the bytes make of Python
        what = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
        raise StepError(
            f"the model {file(workspace)} can't be read (clear train_model to make it anew): {what}"
        ) from error
