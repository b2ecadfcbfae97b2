"""Accounts for an environment's servers: its bucket, its git server, its Airflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eks.aws import SIGN_IN, translating_aws_errors
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


def find_git_account(api: Cluster | None, env: Mapping[str, str] = os.environ) -> Account:
    """Return the git server's account: from `env`, or else from the cluster's Secret.

    Raises AccountError where neither has it.
    """
    if env.get(USER) and env.get(PASSWORD):
        return Account(env[USER], env[PASSWORD])
    secret = (api.read_secret(AIRFLOW, GIT_SECRET) if api else None) or {}
    if secret.get(USER) and secret.get(PASSWORD):
        return Account(secret[USER], secret[PASSWORD])
    raise AccountError(
        f"nobody says who we are to the git server: {USER} and {PASSWORD} are not set",
        f"set both: a user, and a token that may write to the datasets repository ({USER}=…)",
    )


def read_aws_keys(site: Site) -> Any:
    """Return the person's AWS keys, valid for the next minutes. Raises AccountError."""
    with translating_aws_errors("use your credentials"):
        found = site.aws.session.get_credentials()
        keys = found and found.get_frozen_credentials()
    if not keys:
        raise AccountError("there are no AWS credentials", SIGN_IN)
    return keys


def build_access(
    site: Site, git: Account, airflow_url: str = "", airflow: Account | None = None
) -> Access:
    """Return the access to the environment's servers, with the person's current AWS keys.

    Raises AccountError without any.
    """
    keys = read_aws_keys(site)
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
        dataset_name=site.config.project.main,
        data_sets=site.config.project.name_other_paths(chosen.dataset),
        airflow_url=airflow_url,
        airflow_user=airflow.user if airflow else "",
        airflow_password=airflow.password if airflow else "",
    )
