"""What boto3 raises, as errors of a step: missing, refused, or worth a retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from dataset_steps.errors import StepError, TemporaryError

REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
# Errors that no retry helps, though neither is the object missing nor the key wrong.
UNUSABLE = {
    "NoSuchBucket",
    "PermanentRedirect",
    "InvalidObjectState",  # in an archive
    "KMS.DisabledException",
    "KMS.NotFoundException",
}
SERVER_FAILS = 500  # HTTP statuses from here on are failures of the server


class Missing(StepError):
    """The remote has no such object."""


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """Translate boto3's errors into step errors: missing, refused, or worth a retry.

    An S3 server names its error (S3 API reference, Error responses). While a server is restarted, a
    request can reach a proxy, whose 404 or 403 says nothing about the object.
    """
    try:
        yield
    except ClientError as error:
        raise step_error_for(error, where) from error
    except BotoCoreError as error:
        raise TemporaryError(f"no answer from S3 for {where}: {error}") from error


def step_error_for(error: ClientError, where: str) -> StepError:
    """Return the step error for an S3 error. Without an error code, boto3 puts the status there."""
    code = error.response.get("Error", {}).get("Code") or ""
    if not code or code.isdigit():
        return TemporaryError(f"what answered {http_status(error)} for {where} names no S3 error")
    if code == "NoSuchKey":
        return Missing(
            f"the remote has no object {where}: was it deleted, or does the pointer name a wrong "
            "hash?"
        )
    if code in REFUSED:
        return StepError(f"the S3 server refused the step's key for {where}: {error}")
    if code in UNUSABLE:
        return StepError(f"the S3 server can't serve {where}: {error}")
    return TemporaryError(f"the S3 server could not serve {where}: {error}")


def http_status(error: ClientError) -> int:
    """Return the HTTP status of the response."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
