"""`publish`: the model is in the DVC remote, and exactly one commit of the run names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dvc.utils.serialize import ParseError, modify_yaml, parse_yaml

from dataset_steps import load, pointer, repository
from dataset_steps.errors import StepError
from dataset_steps.files import write_whole
from dataset_steps.push import in_turn, run_trailers
from dataset_steps.remote import Remote
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace
from model_steps import model, schema
from model_steps.model import METRICS, MODEL, SCHEMA, Prepared, Trained
from model_steps.request import Request

RESULT = "model.json"


def publish(settings: Settings, workspace: Workspace, request: Request) -> None:
    """One commit with this Run-Id is on the server's branch, and its model is in the remote.

    The bucket says which commit it is. Raises TemporaryError when others kept pushing first.
    """
    clone = workspace.repository
    if not workspace.recorded("prepared", Prepared):  # an earlier attempt was killed as it ended
        workspace.clear()
        repository.clone(settings.git_url, clone)
    commit = in_turn(workspace, lambda: publish_commit(settings, workspace, request))
    tell(settings, clone, commit)
    print(f"published commit {commit}")
    workspace.remove()


def publish_commit(settings: Settings, workspace: Workspace, request: Request) -> str:
    """The run's commit on the server. Raises PushRejected when another push came first."""
    clone = workspace.repository
    repository.fetch(clone)
    if done := repository.commit_with(clone, run_trailers(settings)):
        return done
    made, data = ready(workspace), model.prepared(workspace)
    repository.reset(clone)
    refuse_drift(workspace, request)
    Remote(clone).store(made.pointer, model.file(workspace))
    paths = write(settings, workspace, made, data)
    repository.commit(clone, paths, message(settings, made, data))
    repository.push(clone)
    return repository.head(clone)


def ready(workspace: Workspace) -> Trained:
    """The model, which was validated and is as it was then. Raises StepError."""
    made = model.proven(workspace)
    if model.validated(workspace).md5 != made.md5:
        raise StepError("the model was trained again since it was validated: clear validate_model")
    return made


def refuse_drift(workspace: Workspace, request: Request) -> None:
    """Raises StepError when a model of another schema was published since the run began."""
    newest = schema.read(workspace.repository / SCHEMA)
    if newest and not request.accept_schema_change:
        changes = schema.drift(newest, model.known_schema(workspace))
        schema.refuse(changes, model.prepared(workspace).data_commit)


def write(settings: Settings, workspace: Workspace, made: Trained, data: Prepared) -> list[Path]:
    """The work tree's files are those of this model; which they are."""
    clone = workspace.repository
    ignored = repository.ignore(clone / MODEL)
    meta = {"data_commit": data.data_commit, "dag_id": settings.dag_id, "run_id": settings.run_id}
    pointer.write(clone / f"{MODEL}.dvc", made.pointer, meta)
    write_whole(clone / METRICS, json.dumps(model.validated(workspace).metrics, indent=2) + "\n")
    write_whole(clone / SCHEMA, model.known_schema(workspace).text())
    names = (f"{MODEL}.dvc", METRICS, SCHEMA)
    return [ignored, name_metrics(clone / "dvc.yaml"), *(clone / name for name in names)]


def name_metrics(path: Path) -> Path:
    """`dvc metrics show` shows the model's metrics; whatever else the file says stays."""
    try:
        with modify_yaml(path) as content:
            names = content.setdefault("metrics", [])
            if METRICS not in names:
                names.append(METRICS)
    except (ParseError, AttributeError, TypeError) as error:
        raise StepError(f"{path.name} in the repository is not DVC's: {error}") from error
    return path


def message(settings: Settings, made: Trained, data: Prepared) -> str:
    """The commit message: which run made which model from which data."""
    trailers = {
        **run_trailers(settings),
        "Dag-Version": settings.dag_version,
        "Data-Commit": data.data_commit,
        "Data-Md5": data.data_md5,
        "Model-Md5": made.md5,
        "Model-Size": str(made.size),
    }
    return repository.message(f"model: train {MODEL}", trailers)


def tell(settings: Settings, clone: Path, commit: str) -> None:
    """The bucket has the run's result, which is made of its commit alone."""
    content = json.dumps(result(settings, clone, commit), indent=1) + "\n"
    load.put(settings.bucket, f"results/{settings.dag_id}/{RESULT}", content.encode())


def result(settings: Settings, clone: Path, commit: str) -> dict[str, Any]:
    names = parse_yaml(repository.content(clone, commit, f"{MODEL}.dvc"), MODEL)
    return {
        "run_id": settings.run_id,
        "commit": commit,
        "data_commit": names["meta"]["data_commit"],
        "model": {"path": MODEL, "md5": names["outs"][0]["md5"], "size": names["outs"][0]["size"]},
        "metrics": json.loads(repository.content(clone, commit, METRICS)),
    }
