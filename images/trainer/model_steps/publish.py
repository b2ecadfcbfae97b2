"""`publish`: store the model in the DVC remote, and publish exactly one commit that names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dvc.utils.serialize import parse_yaml

from dataset_steps import load, pointer, repository, yaml_files
from dataset_steps.errors import StepError
from dataset_steps.files import write_atomically
from dataset_steps.pointer import Pointer
from dataset_steps.push import describe_outcome, publish_in_turn, push_commit, run_trailers
from dataset_steps.remote import Remote
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace
from model_steps import model, schema
from model_steps.model import METRICS, MODEL, SCHEMA, Prepared, Trained
from model_steps.request import Request

RESULT = "model.json"


def publish(settings: Settings, workspace: Workspace, request: Request) -> None:
    """Store the model in the remote, publish one commit with this Run-Id, write it to the bucket.

    Raise TemporaryError when other pushes kept coming first.
    """
    clone = workspace.repository
    if not workspace.read_record("prepared", Prepared):  # an earlier attempt was killed as it ended
        workspace.clear()
        repository.clone(settings.git_url, clone)
    commit = publish_in_turn(workspace, lambda: publish_commit(settings, workspace, request))
    write_result(settings, clone, commit)
    print(describe_outcome(workspace, commit))
    workspace.remove()


def publish_commit(settings: Settings, workspace: Workspace, request: Request) -> str:
    """Publish the run's commit and return it. Raise PushRejected when another push came first."""
    clone = workspace.repository
    repository.fetch(clone)
    if done := repository.find_commit(clone, run_trailers(settings)):
        return done
    made, data = require_validated_model(workspace), model.read_prepared(workspace)
    repository.reset(clone)
    refuse_drift(workspace, request)
    remote, version = Remote(clone), find_place(clone / f"{MODEL}.dvc", made)
    remote.store(version, model.model_file(workspace))
    paths = write_files(settings, workspace, version, data)
    remote.require_pullable(MODEL)
    repository.commit(clone, paths, commit_message(settings, made, data))
    return push_commit(workspace)


def find_place(path: Path, made: Trained) -> Pointer:
    """Return the new version, in the remote that the newest model's pointer names."""
    return replace(made.pointer, remote=pointer.read(path).remote if path.exists() else None)


def require_validated_model(workspace: Workspace) -> Trained:
    """Return the trained model. Raise StepError unless it is unchanged since its validation."""
    made = model.verify_model(workspace)
    if model.read_validated(workspace).md5 != made.md5:
        raise StepError("the model was trained again since it was validated: clear validate_model")
    return made


def refuse_drift(workspace: Workspace, request: Request) -> None:
    """Raise StepError when a model of another schema was published since the run began."""
    newest = schema.read(workspace.repository / SCHEMA)
    if newest and not request.accept_schema_change:
        changes = schema.find_changes(newest, model.read_schema(workspace))
        schema.refuse_changes(changes, model.read_prepared(workspace).data_commit)


def write_files(
    settings: Settings, workspace: Workspace, version: Pointer, data: Prepared
) -> list[Path]:
    """Write this model's files to the work tree. Return their paths."""
    clone = workspace.repository
    ignored = repository.ignore_file(clone / MODEL)
    meta = {"data_commit": data.data_commit, "dag_id": settings.dag_id, "run_id": settings.run_id}
    pointer.write(clone / f"{MODEL}.dvc", version, meta)
    write_atomically(
        clone / METRICS, json.dumps(model.read_validated(workspace).metrics, indent=2) + "\n"
    )
    write_atomically(clone / SCHEMA, model.read_schema(workspace).text())
    names = (f"{MODEL}.dvc", METRICS, SCHEMA)
    return [ignored, register_metrics(clone / "dvc.yaml"), *(clone / name for name in names)]


def register_metrics(path: Path) -> Path:
    """Add the metrics to `dvc.yaml`, for `dvc metrics show`; keep the rest. Return its path."""
    content = yaml_files.read_for_update(path) if path.exists() else {}
    names = content.setdefault("metrics", []) if isinstance(content, dict) else None
    if not isinstance(names, list):
        raise StepError(f"{path.name} in the repository is not DVC's: it has no list of metrics")
    if not any(METRICS in name if isinstance(name, dict) else name == METRICS for name in names):
        names.append(METRICS)
        yaml_files.write(path, content)
    return path


def commit_message(settings: Settings, made: Trained, data: Prepared) -> str:
    """Return the commit message: which run made which model from which data."""
    trailers = {
        **run_trailers(settings),
        "Dag-Version": settings.dag_version,
        "Data-Commit": data.data_commit,
        "Data-Md5": data.data_md5,
        "Model-Md5": made.md5,
        "Model-Size": str(made.size),
    }
    return repository.format_message(f"model: train {MODEL}", trailers)


def write_result(settings: Settings, clone: Path, commit: str) -> None:
    """Write the run's result, which depends on its commit alone, to the bucket."""
    content = json.dumps(build_result(settings, clone, commit), indent=1) + "\n"
    load.put(settings.bucket, f"results/{settings.dag_id}/{RESULT}", content.encode())


def build_result(settings: Settings, clone: Path, commit: str) -> dict[str, Any]:
    names = parse_yaml(repository.read_file(clone, commit, f"{MODEL}.dvc"), MODEL)
    return {
        "run_id": settings.run_id,
        "commit": commit,
        "data_commit": names["meta"]["data_commit"],
        "model": {"path": MODEL, "md5": names["outs"][0]["md5"], "size": names["outs"][0]["size"]},
        "metrics": json.loads(repository.read_file(clone, commit, METRICS)),
    }
