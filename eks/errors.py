"""The kit's errors on AWS: their own texts are for somebody with a lab on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from eks import aws
from eks.site import Site
from lab.console import keep_output
from lab.errors import AccessError, AccountError, LabError, ServiceError

OF_A_LAB = re.compile(r"\blab (up|down|doctor|logs|env|status)\b")
UNAUTHORIZED = 401


@contextmanager
def translating_errors(site: Site) -> Iterator[None]:
    """Raise the block's LabErrors with what they mean for this environment."""
    try:
        yield
    except LabError as error:
        keep_output(error, site.folder)
        translated = translate_error(error, site)
        raise translated from (error.__cause__ if translated is error else error)


def translate_error(error: LabError, site: Site) -> LabError:
    """Return the error, or its equivalent, with a fix for a cluster on AWS."""
    from botocore.exceptions import BotoCoreError, ClientError

    cause = error.__cause__
    if type(error) in {AccessError, ServiceError}:
        if isinstance(cause, ClientError):
            return aws.error_from_response("read the bucket", cause)
        if isinstance(cause, BotoCoreError):
            return aws.error_from_boto3("read the bucket", cause)
        if getattr(cause, "status", None) == UNAUTHORIZED:
            return AccountError(error.what, aws.AGAIN)
    if OF_A_LAB.search(error.fix):
        error.fix = ACCOUNTS if isinstance(error, AccessError) else kubectl_advice(site)
    return error


ACCOUNTS = (
    "the accounts are in the Secrets git-credentials and airflow-login of namespace airflow;"
    " `GIT_SYNC_USERNAME=... GIT_SYNC_PASSWORD=... nox -s eks -- apply` writes git's anew"
)


def kubectl_advice(site: Site) -> str:
    """Return a fix: the command that shows the cause, and what to do then."""
    kubectl = f"kubectl --kubeconfig {site.folder / 'kubeconfig'} -n airflow"
    return f"{kubectl} get pods,events; then the same command again: it goes on where it stopped"
