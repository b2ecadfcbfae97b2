"""MinIO, the S3 server on a cluster: one versioned bucket, and the steps' key to it.

`prepare` checks before it writes, so a second call writes nothing, or completes a killed one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3

from lab.client.s3 import REGION
from lab.errors import AccessError, ServiceError

if TYPE_CHECKING:
    from minio import Minio, MinioAdmin

POLICY = "steps"
RUNS = "results/*/runs/*"  # what the tasks of a run pass to each other
TIMEOUT = urllib3.Timeout(connect=5, read=30)  # seconds
RETRIES = urllib3.Retry(
    total=3, backoff_factor=0.2, status_forcelist=(502, 503, 504), allowed_methods=None
)
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
RESET = "`lab down --purge` and `lab up` make new keys"
LOGS = "lab logs minio"


def http_pool() -> urllib3.PoolManager:
    """Return a connection pool with timeouts: the library's own waits five minutes, six times."""
    return urllib3.PoolManager(timeout=TIMEOUT, retries=RETRIES)


def prepare(
    url: str, user: str, password: str, bucket: str, step_key: str, step_secret: str
) -> None:
    """Create the versioned bucket and the steps' key, which reaches that bucket only.

    `user` and `password` are the root user's. Raises AccessError and ServiceError.
    """
    with translating_errors():
        ensure_bucket(s3_client(url, user, password), bucket)
        root = admin_client(url, user, password)
        ensure_policy(root, step_policy(bucket))
        if not has_step_policy(root, step_key) or not is_admitted(
            url, step_key, step_secret, bucket
        ):
            root.user_add(step_key, step_secret)
            root.policy_set(POLICY, user=step_key)


def s3_client(url: str, key: str, secret: str) -> Minio:
    from minio import Minio

    where = urlsplit(url)
    return Minio(
        where.netloc,
        access_key=key,
        secret_key=secret,
        secure=where.scheme == "https",
        region=REGION,
        http_client=http_pool(),
    )


def admin_client(url: str, user: str, password: str) -> MinioAdmin:
    from minio import MinioAdmin
    from minio.credentials.providers import StaticProvider

    where = urlsplit(url)
    return MinioAdmin(
        endpoint=where.netloc,
        credentials=StaticProvider(user, password),
        secure=where.scheme == "https",
        http_client=http_pool(),
    )


def ensure_bucket(root: Minio, bucket: str) -> None:
    """Create the bucket unless it exists, and keep what is overwritten or deleted as versions."""
    from minio.commonconfig import ENABLED
    from minio.versioningconfig import VersioningConfig

    if not root.bucket_exists(bucket):
        root.make_bucket(bucket)
    if root.get_bucket_versioning(bucket).status != ENABLED:
        root.set_bucket_versioning(bucket, VersioningConfig(ENABLED))


def step_policy(bucket: str) -> dict[str, Any]:
    """Return the policy of the steps: read and add objects, and delete only records of runs.

    Unless denied, MinIO lets every key change its own secret and create more keys with its rights,
    which would outlive it.
    """
    on_bucket = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
    on_objects = [
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    ]
    name = f"arn:aws:s3:::{bucket}"
    statements = [
        {"Effect": "Allow", "Action": on_bucket, "Resource": [name]},
        {"Effect": "Allow", "Action": on_objects, "Resource": [f"{name}/*"]},
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"{name}/{RUNS}"]},
        {"Effect": "Deny", "Action": ["admin:*"]},
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def ensure_policy(root: MinioAdmin, wanted: Mapping[str, Any]) -> None:
    """Create or replace the policy unless the server has the same."""
    found = find_by_name(root.policy_info, POLICY)
    if found is None or canonical_statements(found) != canonical_statements(wanted):
        root.policy_add(POLICY, policy=dict(wanted))


def canonical_statements(policy: Mapping[str, Any]) -> list[str]:
    """Return a policy's statements, sorted: MinIO keeps no order of statements or actions."""
    ordered = [
        {key: sorted(value) if isinstance(value, list) else value for key, value in one.items()}
        for one in policy["Statement"]
    ]
    return sorted(json.dumps(statement, sort_keys=True) for statement in ordered)


def has_step_policy(root: MinioAdmin, key: str) -> bool:
    """Return whether the key exists, enabled, with the steps' policy and no other."""
    found = find_by_name(root.user_info, key) or {}
    return found.get("policyName") == POLICY and found.get("status") == "enabled"


def find_by_name(ask: Any, name: str) -> Mapping[str, Any] | None:
    """Return the answer of `ask` for a policy or user, or None if MinIO has none of that name."""
    from minio.error import MinioAdminException

    try:
        found: Mapping[str, Any] = json.loads(ask(name))
    except MinioAdminException as error:
        if "Status: 404" in str(error):
            return None
        raise
    return found


def is_admitted(url: str, key: str, secret: str, bucket: str) -> bool:
    """Return whether the server accepts the key with this secret."""
    from minio.error import S3Error

    try:
        return s3_client(url, key, secret).bucket_exists(bucket)
    except S3Error as error:
        if error.code in REFUSED:
            return False
        raise


@contextmanager
def translating_errors() -> Iterator[None]:
    """Raise the MinIO client's errors as AccessError or ServiceError."""
    from minio.error import MinioAdminException, MinioException, S3Error

    try:
        yield
    except S3Error as error:
        if error.code in REFUSED:
            raise access_error(str(error.code)) from error
        raise ServiceError(f"MinIO answered {error.code}: {error.message}", LOGS) from error
    except MinioAdminException as error:
        if "Status: 403" in str(error):
            raise access_error("403") from error
        raise ServiceError(f"MinIO's administration: {error}", LOGS) from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise ServiceError(f"MinIO does not answer: {error}", LOGS) from error


def access_error(why: str) -> AccessError:
    return AccessError(f"MinIO refused the lab's own user ({why})", RESET)
