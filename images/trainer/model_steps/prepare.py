"""`prepare`: the run's workspace has the records of one data commit, checked and split."""

from __future__ import annotations

from pathlib import Path

from dataset_steps import pointer, repository
from dataset_steps.errors import StepError
from dataset_steps.files import write_whole
from dataset_steps.patience import patiently
from dataset_steps.pointer import Pointer
from dataset_steps.remote import Remote
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, sweep
from model_steps import model, records, schema
from model_steps.model import Prepared
from model_steps.request import Request
from model_steps.schema import HELD_OUT, TRAINING


def prepare(settings: Settings, workspace: Workspace, request: Request) -> None:
    """The workspace holds the parts of the dataset at the data commit, and its schema.

    What was finished is not done again, what was cut off starts afresh. Raises StepError when
    there is no such commit, when no model can be trained on its dataset, and when its schema is
    another than the newest model's.
    """
    if done := workspace.recorded("prepared", Prepared):
        print(f"already prepared: data commit {done.data_commit}")
        return
    sweep(workspace.root.parent)
    workspace.clear()
    clone = workspace.repository
    repository.clone(settings.git_url, clone)
    newest = schema.read(clone / model.SCHEMA)
    commit = find(settings, workspace, request.data_commit)
    repository.checkout(clone, commit)
    version = pointer.read(workspace.pointer)
    fetch(workspace, version)
    split = records.split(workspace.dataset, *parts(workspace))
    if newest and not request.accept_schema_change:
        schema.refuse(schema.drift(newest, split.schema()), commit)
    write_whole(model.schema_file(workspace), split.schema().text())
    workspace.dataset.unlink()  # its parts are what is needed
    keep(workspace, commit, version, split)


def find(settings: Settings, workspace: Workspace, asked: str) -> str:
    """The commit that made the version of the dataset which a commit has. Raises StepError."""
    commit = repository.resolve(workspace.repository, asked)
    if commit is None:
        raise StepError(
            f"{settings.git_url} has no commit {asked} on any branch, or more than one whose hash "
            "begins so; `git log` in a clone shows the commits there are"
        )
    path = f"{settings.dataset_path}.dvc"
    if made := repository.last_change(workspace.repository, commit, path):
        return made
    raise StepError(f"commit {commit} has no {path}: choose a commit with a dataset")


@patiently  # the file is replaced whole, by the same bytes each time
def fetch(workspace: Workspace, version: Pointer) -> None:
    """The dataset is the one that the checked-out pointer names."""
    Remote(workspace.repository).download(version, workspace.dataset_path, workspace.dataset)


def parts(workspace: Workspace) -> tuple[Path, Path]:
    return model.part(workspace, TRAINING), model.part(workspace, HELD_OUT)


def keep(workspace: Workspace, commit: str, version: Pointer, split: records.Split) -> None:
    """The step is done: the next one may begin."""
    training, held_out = split.size_of(TRAINING), split.size_of(HELD_OUT)
    workspace.record("prepared", Prepared(commit, version.md5, training, held_out))
    print(
        f"prepared {training} records to train with and {held_out} held out, "
        f"of version {version.md5} made by data commit {commit}"
    )
