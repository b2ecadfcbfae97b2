"""`load`: write the summary to the bucket, with the data it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dataset_steps import kept
from dataset_steps.bucket import client, put
from dataset_steps.contract import DATASET
from dataset_steps.errors import StepError
from dataset_steps.patience import with_retries
from dataset_steps.s3_errors import Missing, s3_errors
from dataset_steps.settings import Settings
from dataset_steps.transform import SUMMARY
from dataset_steps.workspace import Pulled, Workspace

NAME = "employee_summary.json"


def load(settings: Settings, workspace: Workspace, env: Mapping[str, str]) -> None:
    """Replace the bucket's result by this run's, atomically.

    The bytes depend on the run and its data only, so a repeated load changes nothing.
    """
    key = result_key(settings)
    if content := build_result(settings, workspace):
        put(settings.bucket, key, content)
    elif read_run_id(settings.bucket, key) != settings.run_id:
        raise StepError("nothing was transformed in this run's workspace: run that step first")
    print(f"loaded s3://{settings.bucket}/{key}")
    if kept.parse_keep_hours(env) is None:
        workspace.remove()


def result_key(settings: Settings) -> str:
    return f"results/{settings.dag_id}/{NAME}"


def build_result(settings: Settings, workspace: Workspace) -> bytes | None:
    """Return the summary and its lineage, or None when the workspace has none (any more)."""
    base = workspace.read_pulled(DATASET)
    try:
        departments = json.loads((workspace.root / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if base is None:  # an earlier attempt loaded and was killed during cleanup
        return None
    whole = {"departments": departments, **lineage(settings, base)}
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def lineage(settings: Settings, base: Pulled) -> dict[str, Any]:
    """Return the version of the data, and the run and version of the DAG."""
    return {
        "data": {
            "path": base.path,
            "commit": base.commit,
            "md5": base.md5,
            "size": base.size,
        },
        "dag_id": settings.dag_id,
        "run_id": settings.run_id,
        "dag_version": settings.dag_version,
    }


@with_retries  # it only reads
def read_run_id(bucket: str, key: str) -> str | None:
    """Return the run whose result is in the bucket, or None if there is none."""
    try:
        with s3_errors(f"s3://{bucket}/{key}"):
            body = client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return str(json.loads(body)["run_id"])
    except (Missing, ValueError, KeyError, TypeError):
        return None
