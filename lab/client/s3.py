"""The lab's S3 server, as the lab's owner uses it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lab.errors import AccessError, ProofError, ServiceError
from lab.model import Access

if TYPE_CHECKING:
    import boto3

HERE = ("127.0.0.1", "localhost")
REGION = "us-east-1"
RESTORE = "bring the object back from a backup of the bucket, or check an earlier version out"


def create_client(lab: Access) -> Any:
    """Create boto3's client for the lab's S3 server, with the lab's keys.

    Nothing of the caller's AWS set-up is read, unless the server is AWS itself.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=60,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    here = urlsplit(lab.s3_endpoint).hostname in HERE
    make: Callable[..., Any] = isolated_session().client if here else boto3.client
    return make(
        "s3",
        endpoint_url=lab.s3_endpoint,
        aws_access_key_id=lab.s3_access_key,
        aws_secret_access_key=lab.s3_secret_key,
        aws_session_token=lab.s3_session_token or None,
        region_name=lab.s3_region,
        config=config,
    )


@functools.cache
def isolated_session() -> boto3.Session:
    """Return a session that reads neither AWS's variables nor anything in `~/.aws`.

    Each setting has what it has without them; the service's description is the package's own.
    """
    import boto3
    from botocore.loaders import Loader
    from botocore.session import Session

    # By name: where a file has it, the variable that has it, the value without both, its type.
    known = Session.SESSION_VARIABLES.items()
    settings = {name: (None, None, default, kind) for name, (_, _, default, kind) in known}
    unset = ("config_file", "credentials_file", "s3", "proxies_config")
    nothing = dict.fromkeys(unset, (None, None, None, None))
    session = Session(session_vars={**settings, **nothing})
    own = Loader([Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    session.register_component("data_loader", own)
    return boto3.Session(botocore_session=session)


def ensure_bucket(lab: Access) -> None:
    """Create the lab's bucket unless it exists. Raises AccessError and ServiceError."""
    s3 = create_client(lab)
    with translating_errors():
        names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        if lab.s3_bucket not in names:
            s3.create_bucket(Bucket=lab.s3_bucket)


def read_object(lab: Access, key: str) -> bytes:
    """Return an object's bytes. Raises ProofError when the bucket has no such object."""
    with translating_errors(f"object {key}"):
        content: bytes = create_client(lab).get_object(Bucket=lab.s3_bucket, Key=key)["Body"].read()
    return content


def list_objects(lab: Access, prefix: str) -> list[dict[str, Any]]:
    """List S3's entry of each object under a prefix, by key."""
    pages = create_client(lab).get_paginator("list_objects_v2")
    with translating_errors():
        found = pages.paginate(Bucket=lab.s3_bucket, Prefix=prefix)
        return [entry for page in found for entry in page.get("Contents", [])]


def put_object(lab: Access, key: str, content: bytes) -> None:
    """Write an object."""
    with translating_errors():
        create_client(lab).put_object(Bucket=lab.s3_bucket, Key=key, Body=content)


def delete_object(lab: Access, key: str) -> None:
    """Delete an object if it exists."""
    with translating_errors():
        create_client(lab).delete_object(Bucket=lab.s3_bucket, Key=key)


def environment(lab: Access) -> dict[str, str]:
    """Return the variables that DVC and the AWS tools read."""
    wanted = {
        "AWS_ENDPOINT_URL_S3": lab.s3_endpoint,
        "AWS_ACCESS_KEY_ID": lab.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": lab.s3_secret_key,
        "AWS_SESSION_TOKEN": lab.s3_session_token,
        "AWS_DEFAULT_REGION": lab.s3_region,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    return {name: value for name, value in wanted.items() if value}


@contextmanager
def translating_errors(where: str = "the bucket") -> Iterator[None]:
    """Raise boto3's failures as the lab's errors: ProofError for an object that does not exist."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in {"404", "NoSuchKey", "NoSuchBucket"}:
            raise ProofError(f"there is no {where}", RESTORE) from error
        if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            raise AccessError(
                f"the S3 server refused the lab's key ({code})",
                "`lab env` shows the key; `lab down --purge` and `lab up` make a new one",
            ) from error
        raise ServiceError(f"the S3 server answered {code}", "lab logs seaweedfs") from error
    except BotoCoreError as error:
        raise ServiceError(
            f"the S3 server does not answer: {error}", "lab up restarts it"
        ) from error
