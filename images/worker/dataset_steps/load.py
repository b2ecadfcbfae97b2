"""`load`: the bucket has the summary, and it says which data it was made of."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import boto3

from dataset_steps import kept
from dataset_steps.errors import StepError
from dataset_steps.patience import patiently
from dataset_steps.remote import CLIENT, Missing, asking
from dataset_steps.settings import Settings
from dataset_steps.transform import SUMMARY
from dataset_steps.workspace import Base, Workspace

NAME = "employee_summary.json"


def load(settings: Settings, workspace: Workspace, env: Mapping[str, str]) -> None:
    """The bucket has this run's result: whole, in the place of the one before, or that is left.

    The bytes depend on the run and its data only, so a load that is done again changes nothing.
    """
    key = key_of(settings)
    if content := result(settings, workspace):
        put(settings.bucket, key, content)
    elif run_of(settings.bucket, key) != settings.run_id:
        raise StepError("nothing was transformed in this run's workspace: run that step first")
    print(f"loaded s3://{settings.bucket}/{key}")
    if kept.hours(env) is None:
        workspace.remove()


def key_of(settings: Settings) -> str:
    return f"results/{settings.dag_id}/{NAME}"


def result(settings: Settings, workspace: Workspace) -> bytes | None:
    """The summary and what it was made of and by; None when the workspace has none (any more)."""
    base = workspace.base()
    try:
        departments = json.loads((workspace.root / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if base is None:  # an earlier attempt loaded and was killed while it tidied up
        return None
    whole = {"departments": departments, **lineage(settings, base)}
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def lineage(settings: Settings, base: Base) -> dict[str, Any]:
    """Which version of the data, and which run of which version of the DAG."""
    return {
        "data": {
            "path": settings.dataset_path,
            "commit": base.commit,
            "md5": base.md5,
            "size": base.size,
        },
        "dag_id": settings.dag_id,
        "run_id": settings.run_id,
        "dag_version": settings.dag_version,
    }


@patiently  # the object is replaced whole, by the same bytes each time
def put(bucket: str, key: str, content: bytes) -> None:
    """The object holds `content`; the server refuses bytes that were damaged on their way."""
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    with asking(f"s3://{bucket}/{key}"):
        client().put_object(
            Bucket=bucket,
            Key=key,
            Body=content,
            ContentMD5=base64.b64encode(digest).decode(),
            ContentType="application/json",
        )


@patiently  # it only reads
def run_of(bucket: str, key: str) -> str | None:
    """The run whose result is in the bucket, or None where there is none."""
    try:
        with asking(f"s3://{bucket}/{key}"):
            body = client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return str(json.loads(body)["run_id"])
    except (Missing, ValueError, KeyError, TypeError):
        return None


def client() -> Any:
    """boto3's client; endpoint, region and credentials come from the environment."""
    return boto3.client("s3", config=CLIENT)
