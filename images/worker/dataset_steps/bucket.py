"""Results in the bucket: small objects that a run replaces whole."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import boto3

from dataset_steps.patience import with_retries
from dataset_steps.remote import CLIENT
from dataset_steps.s3_errors import s3_errors


@with_retries  # each attempt replaces the object by the same bytes
def put(bucket: str, key: str, content: bytes) -> None:
    """Write `content` to the object; the server refuses bytes that were damaged in transit."""
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    with s3_errors(f"s3://{bucket}/{key}"):
        client().put_object(
            Bucket=bucket,
            Key=key,
            Body=content,
            ContentMD5=base64.b64encode(digest).decode(),
            ContentType="application/json",
        )


def client() -> Any:
    """Return boto3's client; endpoint, region and credentials come from the environment."""
    return boto3.client("s3", config=CLIENT)
