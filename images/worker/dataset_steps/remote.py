"""The DVC remote: DVC downloads from it, boto3 stores in it and verifies what is stored."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from dvc.exceptions import DvcException
from dvc_data.hashfile.hash import file_md5, fobj_md5

from dataset_steps import configuration
from dataset_steps.configuration import CONNECT, READ
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import BLOCK, md5_of, md5_of_blocks
from dataset_steps.pointer import Pointer

SINGLE_PUT = 5 * 2**30  # bytes; the most that S3 takes in one PUT
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
CLIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 6},
    connect_timeout=CONNECT,
    read_timeout=READ,
)


class Missing(StepError):
    """The remote has no such object."""


class Remote:
    """The DVC remotes of one clone: the one that a pointer names, or the default one."""

    def __init__(self, repository: Path) -> None:
        """Read the clone's DVC configuration. Raise StepError when it is none."""
        self.repo = configuration.open_repository(repository)
        self.remotes: dict[str | None, Any] = {}  # DVC's, by their names; None is the default one
        self.clients: dict[str | None, Any] = {}

    def objects(self, pointer: Pointer) -> Any:
        """Return DVC's store of such objects. Raise StepError unless it is on S3."""
        if (name := pointer.remote) not in self.remotes:
            self.remotes[name] = configuration.find_remote(self.repo, name)
        return self.remotes[name].legacy_odb if pointer.legacy else self.remotes[name].odb

    def s3(self, pointer: Pointer) -> Any:
        """Return boto3's client of the server that DVC asks for such objects.

        What the remote's options leave open (endpoint, region, credentials) is in the environment.
        """
        if (name := pointer.remote) not in self.clients:
            options = self.objects(pointer).fs.fs_args
            given = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
            given |= {"aws_session_token": "token", "use_ssl": "use_ssl"}
            self.clients[name] = boto3.client(
                "s3",
                config=CLIENT,
                **{ours: options[theirs] for ours, theirs in given.items() if theirs in options},
                **options.get("client_kwargs", {}),
            )
        return self.clients[name]

    def require_pullable(self, path: str) -> None:
        """Raise StepError unless DVC brings this file of the clone back by its pointer."""
        configuration.require_pullable(self.repo, path)

    def download(self, pointer: Pointer, dataset_path: str, into: Path) -> str:
        """Download exactly the bytes that `pointer` names to `into`, by DVC; or leave no file.

        Return their MD5, which is not the pointer's where DVC 2 made that of a text with CRLF.
        DVC's file system writes the file directly: no second copy in a cache.
        Raise StepError when the remote lacks the object or holds other bytes under its name.
        """
        self.require_pullable(dataset_path)
        into.unlink(missing_ok=True)
        part = into.with_name(into.name + ".part")
        objects = self.objects(pointer)
        with self.translating_dvc_errors(pointer):
            # One connection: s3fs would hold ten parts of 50 MB each in memory, and is no faster.
            place = objects.oid_to_path(pointer.md5)
            objects.fs.get_file(place, str(part), max_concurrency=1)
        md5, size = md5_of(part), part.stat().st_size
        named = file_md5(str(part), name=objects.hash_name) if pointer.legacy else md5
        if (named, size) != (pointer.md5, pointer.size):
            raise self.wrong_bytes_error(pointer, f"{size} bytes with MD5 {named}")
        part.replace(into)
        return md5

    @contextmanager
    def translating_dvc_errors(self, pointer: Pointer) -> Iterator[None]:
        """Translate DVC's errors into step errors, as `s3_errors` does boto3's.

        DVC's file system does not say who answered that the object does not exist: S3 itself is
        asked. By GET, since HEAD may succeed with a key that may not decrypt the bytes.
        """
        where = self.url(pointer)
        try:
            yield
        except (FileNotFoundError, PermissionError) as error:
            self.get_headers(pointer)
            raise TemporaryError(f"DVC could not read {where}, which is there: {error}") from error
        except (OSError, DvcException, BotoCoreError) as error:
            raise TemporaryError(f"DVC could not read {where}: {error}") from error

    def wrong_bytes_error(self, pointer: Pointer, found: str) -> StepError:
        """Return the error for other bytes: the server holds others, or did not send them all.

        DVC takes the end of a broken connection for the end of the file.
        """
        if self.is_stored(pointer):
            return TemporaryError(f"the object {self.url(pointer)} arrived as {found}")
        return StepError(f"the object {self.url(pointer)} is not what its pointer names: {found}")

    def store(self, pointer: Pointer, path: Path) -> None:
        """Store these bytes in the remote and verify them; no commit may name them before.

        An object that is stored already is not sent again. Raise TemporaryError.
        """
        if self.is_stored(pointer):
            return
        self.send(pointer, path)
        if not self.is_stored(pointer):
            raise TemporaryError(f"the object {self.url(pointer)} is not what was sent")

    def send(self, pointer: Pointer, path: Path) -> None:
        """Upload the bytes of `path`; the server refuses any whose MD5 is not the pointer's.

        The remote's options may ask for encryption or for an ACL.
        """
        place, s3 = self.location(pointer), self.s3(pointer)
        options = self.objects(pointer).fs.fs_args.get("s3_additional_kwargs", {})
        with s3_errors(self.url(pointer)), path.open("rb") as file:
            if pointer.size > SINGLE_PUT:
                s3.upload_fileobj(file, place["Bucket"], place["Key"], ExtraArgs=options)
            else:
                checksum = base64.b64encode(bytes.fromhex(pointer.md5)).decode()
                s3.put_object(**place, **options, Body=file, ContentMD5=checksum)

    def is_stored(self, pointer: Pointer) -> bool:
        """Return whether the server stores exactly these bytes, by its own account.

        The ETag of a single PUT is the MD5 that the server computed; of several parts or under KMS
        it is not (S3 API reference, Object, ETag), and the one that DVC 2 made of a text with CRLF
        is none of the bytes: then these are read back.
        """
        try:
            head = self.head(pointer)
        except Missing:
            return False
        tag = head["ETag"].strip('"')
        if tag != pointer.md5 and ("-" in tag or "SSEKMSKeyId" in head or pointer.legacy):
            tag = self.hash_object(pointer)
        return bool(tag == pointer.md5 and head["ContentLength"] == pointer.size)

    def head(self, pointer: Pointer) -> dict[str, Any]:
        """Return the object's headers, always with an ETag. Raise the errors of `s3_errors`.

        The response to HEAD has no body that could name its error (S3 API reference, HeadObject):
        GET is sent to learn it. Not when the server itself fails: boto3 has retried that.
        """
        where = self.url(pointer)
        with s3_errors(where):
            try:
                said = dict(self.s3(pointer).head_object(**self.location(pointer)))
            except ClientError as error:
                if http_status(error) >= SERVER_FAILS:
                    raise
                said = self.get_headers(pointer)
        if "ETag" not in said:
            raise TemporaryError(f"what answered for {where} gives no ETag, which S3 always does")
        return said

    def get_headers(self, pointer: Pointer) -> dict[str, Any]:
        """Return the headers of a GET of the object; none of its bytes is read."""
        with s3_errors(self.url(pointer)):
            said = dict(self.s3(pointer).get_object(**self.location(pointer)))
            said.pop("Body").close()
            return said

    def hash_object(self, pointer: Pointer) -> str:
        """Return the MD5 of the object's bytes, read from the server, as the pointer's is made."""
        with s3_errors(self.url(pointer)):
            body = self.s3(pointer).get_object(**self.location(pointer))["Body"]
            if pointer.legacy:  # DVC reads blocks of its own size: they matter to that hash
                return str(fobj_md5(body, name=self.objects(pointer).hash_name))
            return md5_of_blocks(body.iter_chunks(BLOCK))

    def location(self, pointer: Pointer) -> dict[str, str]:
        """Return the bucket and the key under which DVC stores these bytes."""
        bucket, _, key = str(self.objects(pointer).oid_to_path(pointer.md5)).partition("/")
        return {"Bucket": bucket, "Key": key}

    def url(self, pointer: Pointer) -> str:
        return "s3://{Bucket}/{Key}".format(**self.location(pointer))


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
