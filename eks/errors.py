"""What the kit's errors mean on AWS: the kit tells somebody who has a lab on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from eks import aws
from eks.site import Site
from lab.errors import AccessError, AccountError, LabError, ServiceError

OF_A_LAB = re.compile(r"\blab (up|down|doctor|logs|env|status)\b")
UNAUTHORIZED = 401


@contextmanager
def translated(site: Site) -> Iterator[None]:
    """Whatever fails is told in the words of this environment. Raises LabError's children."""
    try:
        yield
    except LabError as error:
        meant = on_aws(error, site)
        raise meant from (error.__cause__ if meant is error else error)


def on_aws(error: LabError, site: Site) -> LabError:
    """The error as somebody needs it who looks at a cluster on AWS."""
    from botocore.exceptions import BotoCoreError, ClientError

    cause = error.__cause__
    if type(error) in {AccessError, ServiceError}:
        if isinstance(cause, ClientError):
            return aws.refusal("read the bucket", cause)
        if isinstance(cause, BotoCoreError):
            return aws.unsent("read the bucket", cause)
        if getattr(cause, "status", None) == UNAUTHORIZED:
            return AccountError(error.what, aws.AGAIN)
    if OF_A_LAB.search(error.fix):
        error.fix = ACCOUNTS if isinstance(error, AccessError) else look(site)
    return error


ACCOUNTS = (
    "the accounts are in the Secrets git-credentials and airflow-login of namespace airflow;"
    " `GIT_SYNC_USERNAME=... GIT_SYNC_PASSWORD=... nox -s eks -- apply` writes git's anew"
)


def look(site: Site) -> str:
    """Where the cause is to be seen, and what to do then."""
    opened = f"kubectl --kubeconfig {site.folder / 'kubeconfig'} -n airflow"
    return f"{opened} get pods,events; then the same command again: it goes on where it stopped"
