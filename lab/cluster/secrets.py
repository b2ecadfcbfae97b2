"""The Secrets of a lab on a cluster, in one table: kind and AWS write them, tests look for leaks.

A value that two Secrets share (the database's password) has one name in `stored`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.cluster.workloads import AIRFLOW, STORES

Values = dict[tuple[str, str], dict[str, str]]  # by namespace and name of the Secret
LENGTH = 24  # random bytes, unless the reader of the value wants another number


@dataclass(frozen=True)
class Value:
    """One secret value of a Secret."""

    namespace: str
    secret: str
    key: str
    stored: str | None = None  # its name among a lab's random values; None: it is not random text
    length: int = LENGTH  # random bytes
    encode: Callable[[str], str] = str  # from URL-safe base64 without padding
    kind_only: bool = False  # of a stand-in


def pad_base64(text: str) -> str:
    """Return 32 bytes of URL-safe base64 with their padding, as Fernet wants them."""
    return f"{text}="


def name_kms_key(text: str) -> str:
    """Return 32 bytes in the standard alphabet of base64, padded and named, as MinIO wants them."""
    return f"lab:{pad_base64(text.translate(str.maketrans('-_', '+/')))}"


DATABASE = "postgresql_password"
SECRETS = (
    Value(STORES, "postgresql", "password", DATABASE),
    Value(STORES, "minio", "password", "s3_admin_secret_key", kind_only=True),
    Value(
        STORES, "minio", "encryption-key", "minio_encryption_key", 32, name_kms_key, kind_only=True
    ),
    Value(STORES, "gitea", "secret-key", "gitea_secret_key", kind_only=True),
    Value(STORES, "gitea", "internal-token", "gitea_internal_token", 48, kind_only=True),
    Value(STORES, "gitea", "jwt-secret", "gitea_jwt_secret", 32, kind_only=True),
    Value(STORES, "gitea-ssh", "host-key", kind_only=True),
    Value(AIRFLOW, "airflow-metadata", "password", DATABASE),
    Value(AIRFLOW, "airflow-fernet-key", "fernet-key", "airflow_fernet_key", 32, pad_base64),
    Value(AIRFLOW, "airflow-api-secret-key", "api-secret-key", "airflow_api_secret_key"),
    Value(AIRFLOW, "airflow-jwt-secret", "jwt-secret", "airflow_jwt_secret", 48),
    Value(AIRFLOW, "airflow-login", "password", "airflow_password"),
    Value(AIRFLOW, "push-secret", "secret", "push_secret", 32, kind_only=True),
    Value(AIRFLOW, "git-credentials", "GIT_SYNC_PASSWORD"),
    Value(AIRFLOW, "pipelines-credentials", "GIT_SYNC_PASSWORD"),
    Value(AIRFLOW, "team-a-ssh", "key", kind_only=True),
)
# Without the password: Airflow has it as PGPASSWORD, so that it is part of no address.
METADATA = "postgresql://airflow@postgresql.stores.svc.cluster.local:5432/airflow"


def random_values(find: Callable[[Value], str], *, on_kind: bool) -> Values:
    """Return the random values by Secret; `find` gives each one, the same at each call."""
    found: Values = {}
    for value in SECRETS:
        if value.stored and (on_kind or not value.kind_only):
            found.setdefault((value.namespace, value.secret), {})[value.key] = find(value)
    return found


def merge_values(*parts: Mapping[tuple[str, str], Mapping[str, str]]) -> Values:
    """Return Secrets that have the keys of all parts; a later part's value counts."""
    found: Values = {}
    for part in parts:
        for place, content in part.items():
            found.setdefault(place, {}).update(content)
    return found
