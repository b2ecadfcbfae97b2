"""Who we are to an environment's servers: its bucket, its git server, its Airflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eks.aws import SIGN_IN, errors_known
from eks.site import Site
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW
from lab.errors import AccountError
from lab.model import Access

NAME = "eks"
GIT_SECRET = "git-credentials"  # noqa: S105  the Secret's name
USER, PASSWORD = "GIT_SYNC_USERNAME", "GIT_SYNC_PASSWORD"


@dataclass(frozen=True)
class Account:
    """An account of a server."""

    user: str
    password: str = field(repr=False)


def git_account(api: Cluster | None, env: Mapping[str, str] = os.environ) -> Account:
    """The git server's account: the environment's variables, or else the cluster's Secret.

    Raises AccountError where neither has it.
    """
    if env.get(USER) and env.get(PASSWORD):
        return Account(env[USER], env[PASSWORD])
    held = (api.secret(AIRFLOW, GIT_SECRET) if api else None) or {}
    if held.get(USER) and held.get(PASSWORD):
        return Account(held[USER], held[PASSWORD])
    raise AccountError(
        f"nobody says who we are to the git server: {USER} and {PASSWORD} are not set",
        f"set both: a user, and a token that may write to the datasets repository ({USER}=…)",
    )


def own_keys(site: Site) -> Any:
    """The keys that AWS takes from the person for the next minutes. Raises AccountError."""
    with errors_known("use your credentials"):
        found = site.aws.session.get_credentials()
        keys = found and found.get_frozen_credentials()
    if not keys:
        raise AccountError("there are no AWS credentials", SIGN_IN)
    return keys


def to(site: Site, git: Account, airflow_url: str = "", airflow: Account | None = None) -> Access:
    """The environment's servers, with the person's own AWS keys of this hour.

    Raises AccountError without any.
    """
    keys = own_keys(site)
    chosen = site.environment
    return Access(
        backend=NAME,
        git_url=chosen.datasets,
        git_user=git.user,
        git_password=git.password,
        git_page=chosen.datasets.removesuffix(".git"),
        s3_endpoint=site.aws.client("s3").meta.endpoint_url,
        s3_region=chosen.region,
        s3_bucket=chosen.bucket,
        s3_access_key=keys.access_key,
        s3_secret_key=keys.secret_key,
        s3_session_token=keys.token or "",
        dataset_path=chosen.dataset,
        airflow_url=airflow_url,
        airflow_user=airflow.user if airflow else "",
        airflow_password=airflow.password if airflow else "",
    )
