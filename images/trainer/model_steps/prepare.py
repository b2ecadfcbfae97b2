"""`prepare`: download, check and split the dataset of one data commit."""

from __future__ import annotations

from pathlib import Path

from dataset_steps import pointer, repository
from dataset_steps.errors import StepError
from dataset_steps.files import write_atomically
from dataset_steps.patience import with_retries
from dataset_steps.pointer import Pointer
from dataset_steps.remote import Remote
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, sweep
from model_steps import model, records, schema
from model_steps.model import Prepared
from model_steps.request import Request
from model_steps.schema import HELD_OUT, TRAINING


def prepare(settings: Settings, workspace: Workspace, request: Request) -> None:
    """Write the parts of the data commit's dataset, and its schema, to the workspace.

    A finished preparation is not repeated; one that was cut off starts afresh. Raise StepError when
    there is no such commit, when no model can be trained on its dataset, and when its schema
    differs from the newest model's.
    """
    if done := workspace.read_record("prepared", Prepared):
        print(f"already prepared: data commit {done.data_commit}")
        return
    sweep(workspace.root.parent)
    workspace.clear()
    clone = workspace.repository
    repository.clone(settings.git_url, clone)
    newest = schema.read(clone / model.SCHEMA)
    commit = find_data_commit(settings, workspace, request.data_commit)
    repository.checkout(clone, commit)
    version = pointer.read(workspace.pointer)
    fetch_dataset(workspace, version)
    split = records.split(workspace.dataset, *part_files(workspace))
    if newest and not request.accept_schema_change:
        schema.refuse_changes(schema.find_changes(newest, split.schema()), commit)
    write_atomically(model.schema_file(workspace), split.schema().text())
    workspace.dataset.unlink()  # only its parts are needed
    record_prepared(workspace, commit, version, split)


def find_data_commit(settings: Settings, workspace: Workspace, asked: str) -> str:
    """Return the commit that made the dataset version of the commit asked for. Raise StepError."""
    commit = repository.resolve(workspace.repository, asked)
    if commit is None:
        raise StepError(
            f"{settings.git_url} has no commit {asked} on any branch, or more than one whose hash "
            "begins so; `git log` in a clone shows the commits there are"
        )
    path = f"{settings.dataset_path}.dvc"
    if made := repository.find_last_change(workspace.repository, commit, path):
        return made
    raise StepError(f"commit {commit} has no {path}: choose a commit with a dataset")


@with_retries  # each attempt replaces the file by the same bytes
def fetch_dataset(workspace: Workspace, version: Pointer) -> None:
    """Download the dataset that the checked-out pointer names."""
    Remote(workspace.repository).download(version, workspace.dataset_path, workspace.dataset)


def part_files(workspace: Workspace) -> tuple[Path, Path]:
    return model.part_file(workspace, TRAINING), model.part_file(workspace, HELD_OUT)


def record_prepared(
    workspace: Workspace, commit: str, version: Pointer, split: records.Split
) -> None:
    """Record that the preparation is complete, for the next step."""
    training, held_out = split.size_of(TRAINING), split.size_of(HELD_OUT)
    workspace.record("prepared", Prepared(commit, version.md5, training, held_out))
    print(
        f"prepared {training} records to train with and {held_out} held out, "
        f"of version {version.md5} made by data commit {commit}"
    )
