"""The lab's bucket, for Airflow's own processes: tasks, triggers, callbacks.

Airflow puts this folder on the path of each of its processes, on every backend. Steps do not use
it: they have the worker image's own code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

CALL_SECONDS = 10  # for a connection, and for each read
NAME_LENGTH = 150  # of a run's id, in a name that is made of it


@dataclass(frozen=True)
class Object:
    """One object of the bucket, from a listing."""

    key: str
    etag: str
    size: int  # bytes


def contract() -> Mapping[str, str]:
    """Return where the data is: the same environment that a step sees.

    On a cluster the same ConfigMap and Secrets make it Airflow's environment; the embedded lab
    keeps it in a file, so that its keys are in the environment of the steps alone.
    """
    file = os.environ.get("STEP_ENVIRONMENT_FILE")
    if file is None:
        return os.environ
    known: dict[str, str] = json.loads(Path(file).read_text("utf-8"))
    return known


def client(endpoint: str | None = None) -> S3Client:
    """Return a client of the lab's S3 server, or of another one at `endpoint`.

    Where the contract has no keys, boto3 finds the pod's identity.
    """
    import boto3
    from botocore.config import Config

    known = contract()
    options: dict[str, Any] = {"connect_timeout": CALL_SECONDS, "read_timeout": CALL_SECONDS}
    for name in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION"):
        if value := known.get(f"AWS_{name}"):
            options[name.lower()] = value
    return boto3.client(
        "s3",
        endpoint_url=endpoint or known.get("AWS_ENDPOINT_URL_S3"),
        region_name=known["AWS_REGION"],
        aws_access_key_id=known.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=known.get("AWS_SECRET_ACCESS_KEY"),
        config=Config(**options),
    )


def bucket() -> str:
    return contract()["S3_BUCKET"]


def name_of_run(run_id: str) -> str:
    """Return a run's name for keys: readable, without characters that S3 servers disagree about.

    It is short: some servers keep each part of a key as a file, whose name has at most 255 bytes.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", run_id)[:NAME_LENGTH]
    return f"{readable}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def read(key: str) -> bytes | None:
    """Return the object's content, or None if it does not exist."""
    s3 = client()
    try:
        return s3.get_object(Bucket=bucket(), Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None


def write(key: str, content: bytes) -> None:
    """Replace the object's content, atomically."""
    client().put_object(Bucket=bucket(), Key=key, Body=content)


def listing(prefix: str, s3: S3Client | None = None) -> list[Object]:
    """List the objects whose keys begin with `prefix`, sorted by key."""
    found = entries(prefix, s3 or client())
    return [Object(e["Key"], e["ETag"].strip('"'), e["Size"]) for e in found]


def entries(prefix: str, s3: S3Client) -> Iterator[ObjectTypeDef]:
    """Yield S3's entry of each object whose key begins with `prefix`, sorted by key."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket(), Prefix=prefix):
        yield from page.get("Contents", [])
