"""MinIO, the S3 server on a cluster: one versioned bucket, and an account for each role.

EKS Auth's stand-in opens sessions as these accounts; a session may do what its account may.

`prepare` checks before it writes, so a second call writes nothing, or completes a killed one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3

from lab.client.s3 import REGION
from lab.errors import AccessError, ServiceError

if TYPE_CHECKING:
    from minio import Minio, MinioAdmin

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


@dataclass(frozen=True)
class Account:
    """An account, and the one policy that it has; the policy has the account's name."""

    key: str
    secret: str = field(repr=False)
    policy: Mapping[str, Any] = field(repr=False)


def prepare(url: str, user: str, password: str, bucket: str, accounts: Iterable[Account]) -> None:
    """Create the versioned bucket and the accounts, each with its policy.

    `user` and `password` are the root user's. Raises AccessError and ServiceError.
    """
    with translating_errors():
        ensure_bucket(s3_client(url, user, password), bucket)
        root = admin_client(url, user, password)
        for account in accounts:
            ensure_policy(root, account.key, account.policy)
            if not has_own_policy(root, account.key) or not is_admitted(url, account, bucket):
                root.user_add(account.key, account.secret)
                root.policy_set(account.key, user=account.key)


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


def ensure_policy(root: MinioAdmin, name: str, wanted: Mapping[str, Any]) -> None:
    """Create or replace the policy unless the server has the same."""
    found = find_by_name(root.policy_info, name)
    if found is None or canonical(found["Statement"]) != canonical(wanted["Statement"]):
        root.policy_add(name, policy=dict(wanted))


def canonical(part: Any) -> str:
    """Return a part of a policy as text: MinIO keeps no order, and writes a list of one without."""
    parts = part if isinstance(part, list) else [part]
    return json.dumps(sorted(map(canonical_item, parts)))


def canonical_item(part: Any) -> str:
    """Return an item as text; true is written as a word by AWS and as itself by MinIO."""
    if isinstance(part, Mapping):
        return json.dumps({key: canonical(value) for key, value in part.items()}, sort_keys=True)
    return str(part).lower() if isinstance(part, bool) else str(part)


def has_own_policy(root: MinioAdmin, key: str) -> bool:
    """Return whether the account exists, enabled, with its own policy and no other."""
    found = find_by_name(root.user_info, key) or {}
    return found.get("policyName") == key and found.get("status") == "enabled"


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


def is_admitted(url: str, account: Account, bucket: str) -> bool:
    """Return whether the server accepts the account with this secret."""
    from minio.error import S3Error

    try:
        return s3_client(url, account.key, account.secret).bucket_exists(bucket)
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
