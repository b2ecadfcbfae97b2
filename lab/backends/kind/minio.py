"""MinIO, the S3 server on a cluster: one versioned bucket, and the steps' key for it.

`prepare` looks before it writes, so a second call writes nothing; a killed one is completed.
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
from lab.wait import NotYet

if TYPE_CHECKING:
    from minio import Minio, MinioAdmin

POLICY = "steps"
RUNS = "results/*/runs/*"  # what the tasks of one run hand each other
TIMEOUT = urllib3.Timeout(connect=5, read=30)  # seconds
RETRIES = urllib3.Retry(
    total=3, backoff_factor=0.2, status_forcelist=(502, 503, 504), allowed_methods=None
)
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
RESET = "`lab down --purge` and `lab up` make new keys"
LOGS = "lab logs minio"


def healthy(url: str) -> None:
    """Raises NotYet until MinIO serves."""
    try:
        code = pool().request("GET", f"{url}/minio/health/ready", retries=False).status
    except urllib3.exceptions.HTTPError as error:
        raise NotYet(f"/minio/health/ready does not answer: {error}") from error
    if code != 200:
        raise NotYet(f"/minio/health/ready answers {code}")


def pool() -> urllib3.PoolManager:
    """Connections that end: the library's own wait for five minutes, six times."""
    return urllib3.PoolManager(timeout=TIMEOUT, retries=RETRIES)


def prepare(
    url: str, user: str, password: str, bucket: str, step_key: str, step_secret: str
) -> None:
    """The bucket is there and keeps every version; the steps' key reaches that bucket only.

    `user` and `password` are the server's own. Raises AccessError and ServiceError.
    """
    with answers_known():
        provide_bucket(client(url, user, password), bucket)
        root = administration(url, user, password)
        provide_policy(root, policy(bucket))
        if not is_limited(root, step_key) or not admitted(url, step_key, step_secret, bucket):
            root.user_add(step_key, step_secret)
            root.policy_set(POLICY, user=step_key)


def client(url: str, key: str, secret: str) -> Minio:
    from minio import Minio

    where = urlsplit(url)
    return Minio(
        where.netloc,
        access_key=key,
        secret_key=secret,
        secure=where.scheme == "https",
        region=REGION,
        http_client=pool(),
    )


def administration(url: str, user: str, password: str) -> MinioAdmin:
    from minio import MinioAdmin
    from minio.credentials.providers import StaticProvider

    where = urlsplit(url)
    return MinioAdmin(
        endpoint=where.netloc,
        credentials=StaticProvider(user, password),
        secure=where.scheme == "https",
        http_client=pool(),
    )


def provide_bucket(root: Minio, bucket: str) -> None:
    """The bucket is there, and what is overwritten or deleted in it stays as an older version."""
    from minio.commonconfig import ENABLED
    from minio.versioningconfig import VersioningConfig

    if not root.bucket_exists(bucket):
        root.make_bucket(bucket)
    if root.get_bucket_versioning(bucket).status != ENABLED:
        root.set_bucket_versioning(bucket, VersioningConfig(ENABLED))


def policy(bucket: str) -> dict[str, Any]:
    """What a step needs to read and add objects. It can delete nothing but records of runs.

    Unless denied, MinIO lets every key change its own secret and make more keys of its kind, which
    would outlive it.
    """
    whole = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
    objects = [
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    ]
    name = f"arn:aws:s3:::{bucket}"
    statements = [
        {"Effect": "Allow", "Action": whole, "Resource": [name]},
        {"Effect": "Allow", "Action": objects, "Resource": [f"{name}/*"]},
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"{name}/{RUNS}"]},
        {"Effect": "Deny", "Action": ["admin:*"]},
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def provide_policy(root: MinioAdmin, wanted: Mapping[str, Any]) -> None:
    """The server knows the policy as it is here."""
    found = known(root.policy_info, POLICY)
    if found is None or canonical(found) != canonical(wanted):
        root.policy_add(POLICY, policy=dict(wanted))


def canonical(policy: Mapping[str, Any]) -> list[str]:
    """The statements of a policy: MinIO keeps neither their order nor that of their parts."""
    ordered = [
        {key: sorted(value) if isinstance(value, list) else value for key, value in one.items()}
        for one in policy["Statement"]
    ]
    return sorted(json.dumps(statement, sort_keys=True) for statement in ordered)


def is_limited(root: MinioAdmin, key: str) -> bool:
    """Whether the key is there with the steps' policy and no other."""
    found = known(root.user_info, key) or {}
    return found.get("policyName") == POLICY and found.get("status") == "enabled"


def known(ask: Any, name: str) -> Mapping[str, Any] | None:
    """What MinIO says of something by that name, or None when there is no such thing."""
    from minio.error import MinioAdminException

    try:
        found: Mapping[str, Any] = json.loads(ask(name))
    except MinioAdminException as error:
        if "Status: 404" in str(error):
            return None
        raise
    return found


def admitted(url: str, key: str, secret: str, bucket: str) -> bool:
    """Whether the server knows the key with this secret."""
    from minio.error import S3Error

    try:
        return client(url, key, secret).bucket_exists(bucket)
    except S3Error as error:
        if error.code in REFUSED:
            return False
        raise


@contextmanager
def answers_known() -> Iterator[None]:
    """The library's failures as the lab's errors."""
    from minio.error import MinioAdminException, MinioException, S3Error

    try:
        yield
    except S3Error as error:
        if error.code in REFUSED:
            raise refused(str(error.code)) from error
        raise ServiceError(f"MinIO answered {error.code}: {error.message}", LOGS) from error
    except MinioAdminException as error:
        if "Status: 403" in str(error):
            raise refused("403") from error
        raise ServiceError(f"MinIO's administration: {error}", LOGS) from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise ServiceError(f"MinIO does not answer: {error}", LOGS) from error


def refused(why: str) -> AccessError:
    return AccessError(f"MinIO refused the lab's own user ({why})", RESET)
