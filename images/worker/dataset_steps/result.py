"""The facts of a run's commit, in the bucket: for whoever tells of it, or serves what it made."""

from __future__ import annotations

import json
from typing import Any

from dataset_steps import repository
from dataset_steps.bucket import put
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace

# The trailers of one data set: the first begins a group, and all become facts of these names.
DATA = {"Data-Path": "path", "Data-Md5": "md5", "Data-Size": "size", "Data-Parent": "parent"}
FROM = {"From-Path": "path", "From-Commit": "commit", "From-Md5": "md5"}


def write(
    settings: Settings, workspace: Workspace, commit: str, name: str, metrics: tuple[str, ...]
) -> None:
    """Replace the DAG's result in the bucket, which depends on the commit alone."""
    facts = {
        "run_id": settings.run_id,
        "dag_id": settings.dag_id,
        "commit": commit,
        **read_facts(settings, workspace, commit),
        "metrics": read_metrics(workspace, commit, metrics),
    }
    key = f"results/{settings.dag_id}/{name}"
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    put(settings.bucket, key, text.encode())
    print(f"wrote s3://{settings.bucket}/{key}")


def read_facts(settings: Settings, workspace: Workspace, commit: str) -> dict[str, Any]:
    """Return what the commit's trailers say: the version of the DAG, the data, its sources."""
    trailers = repository.read_trailers(workspace.repository, commit)
    names = {path: name for name, path in settings.data_sets.items()}
    return {
        "dag_version": dict(trailers).get("Dag-Version"),
        "data": group(trailers, DATA, names),
        "from": group(trailers, FROM, names),
    }


def group(
    trailers: list[tuple[str, str]], keys: dict[str, str], names: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the facts of each data set, from the trailers with these keys."""
    groups: list[dict[str, Any]] = []
    first = next(iter(keys))
    for key, value in trailers:
        if key == first:
            groups.append({"name": names.get(value)})
        if key in keys:
            groups[-1][keys[key]] = int(value) if key == "Data-Size" else value
    return groups


def read_metrics(workspace: Workspace, commit: str, paths: tuple[str, ...]) -> dict[str, Any]:
    """Return all metrics of the commit, of all its files together."""
    texts = [repository.read_file(workspace.repository, commit, path) for path in paths]
    return {name: value for text in texts for name, value in json.loads(text).items()}
