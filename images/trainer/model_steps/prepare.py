"""`prepare`: check and split the dataset that was pulled."""

from __future__ import annotations

from pathlib import Path

from dataset_steps import repository
from dataset_steps.contract import DATASET
from dataset_steps.errors import StepError
from dataset_steps.files import write_atomically
from dataset_steps.workspace import Pulled, Workspace
from model_steps import model, records, schema
from model_steps.model import Prepared
from model_steps.request import Request
from model_steps.schema import HELD_OUT, TRAINING, Schema


def prepare(workspace: Workspace, request: Request) -> None:
    """Write the parts of the pulled dataset, and its schema, to the workspace.

    A finished preparation is not repeated; one that was cut off starts afresh. Raise StepError when
    no model can be trained on the dataset, and when its schema differs from the newest model's.
    """
    base = workspace.require_pulled(DATASET)
    done = workspace.read_record("prepared", Prepared)
    if done and (done.data_commit, done.data_md5) == (base.commit, base.md5):
        print(f"already prepared: data commit {done.data_commit}")
    else:
        split_dataset(workspace, base)
    newest = read_newest_schema(workspace)
    if newest and not request.accept_schema_change:
        changes = schema.find_changes(newest, model.read_schema(workspace))
        schema.refuse_changes(changes, base.commit)


def split_dataset(workspace: Workspace, base: Pulled) -> None:
    """Write the parts and the schema, and record that it is done."""
    place = workspace.place(DATASET)
    if place.is_dir():
        raise StepError(f"{base.path} is a directory, and the training needs one CSV file")
    split = records.split(place, *part_files(workspace))
    write_atomically(model.schema_file(workspace), split.schema().text())
    training, held_out = split.size_of(TRAINING), split.size_of(HELD_OUT)
    workspace.record("prepared", Prepared(base.commit, base.md5, training, held_out))
    print(
        f"prepared {training} records to train with and {held_out} held out, "
        f"of version {base.md5} made by data commit {base.commit}"
    )


def part_files(workspace: Workspace) -> tuple[Path, Path]:
    return model.part_file(workspace, TRAINING), model.part_file(workspace, HELD_OUT)


def read_newest_schema(workspace: Workspace) -> Schema | None:
    """Return the newest model's schema, or None without a model.

    It is read from the commit that is checked out: an earlier attempt may have written another one
    to the clone. Raise StepError when it is none.
    """
    clone = workspace.repository
    if not repository.find_blob(clone, "HEAD", model.SCHEMA):
        return None
    return schema.parse(model.SCHEMA, repository.read_file(clone, "HEAD", model.SCHEMA))
