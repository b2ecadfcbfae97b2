"""The DVC remote: what DVC reads from it, what is stored in it, and the proof that it is there."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from dvc.exceptions import DvcException
from dvc.repo import Repo

from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import BLOCK, md5_of, md5_of_blocks
from dataset_steps.pointer import Pointer

SINGLE_PUT = 5 * 2**30  # bytes; the most that S3 takes in one PUT
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
# What no patience helps, though neither the object is missing nor the key wrong.
UNUSABLE = {
    "NoSuchBucket",
    "PermanentRedirect",
    "InvalidObjectState",  # in an archive
    "KMS.DisabledException",
    "KMS.NotFoundException",
}
# Seconds. A connection to a server whose pod is gone is answered by nobody; the default is 60.
CONNECT, READ = 5, 60
SERVER_FAILS = 500  # and above: the HTTP statuses of a server's own failures
CLIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 6},
    connect_timeout=CONNECT,
    read_timeout=READ,
)


class Missing(StepError):
    """The remote has no such object."""


class Remote:
    """The default DVC remote of one clone; it must be an S3 one."""

    def __init__(self, repository: Path) -> None:
        """Reads the clone's DVC configuration. Raises StepError when it names no S3 remote."""
        try:
            self.repo = impatient(Repo(str(repository)))
            self.objects = self.repo.cloud.get_remote_odb()
        except DvcException as error:
            raise StepError(f"the repository's DVC configuration is unusable: {error}") from error
        if self.objects.fs.protocol != "s3":
            raise StepError(f"the DVC remote is {self.objects.fs.protocol}; these steps need s3")

    @cached_property
    def s3(self) -> Any:
        """boto3's client; endpoint, region and credentials come from the environment."""
        return boto3.client("s3", config=CLIENT)

    def download(self, pointer: Pointer, dataset_path: str, into: Path) -> None:
        """`into` holds exactly the bytes that `pointer` names, read by DVC; or it does not exist.

        DVC's file system writes the file directly: no second copy in a cache. An older `into` goes
        first, or DVC would take that for the dataset and copy it.
        Raises StepError when the remote lacks the object or holds other bytes under its name.
        """
        into.unlink(missing_ok=True)
        part = into.with_name(into.name + ".part")
        with self.reading(pointer):
            # One connection: s3fs would hold ten parts of 50 MB each in memory, and is no faster.
            self.repo.dvcfs.get_file(f"/{dataset_path}", str(part), max_concurrency=1)
        if (found := Pointer(md5_of(part), part.stat().st_size)) != pointer:
            raise self.wrong_bytes(pointer, found)
        part.replace(into)

    @contextmanager
    def reading(self, pointer: Pointer) -> Iterator[None]:
        """DVC's failures, told apart as `asking` does it.

        What DVC reads with does not say who answered that there is nothing: S3 itself is asked, for
        the bytes: who may not decrypt them may still be told of them.
        """
        where = self.where(pointer)
        try:
            yield
        except (FileNotFoundError, PermissionError) as error:
            self.begin(pointer)
            raise TemporaryError(f"DVC could not read {where}, which is there: {error}") from error
        except (OSError, DvcException, BotoCoreError) as error:
            raise TemporaryError(f"DVC could not read {where}: {error}") from error

    def wrong_bytes(self, pointer: Pointer, found: Pointer) -> StepError:
        """Why other bytes arrived: the server holds others, or it did not send them all.

        DVC takes the end of a broken connection for the end of the file.
        """
        what = f"{found.size} bytes with MD5 {found.md5}"
        if self.proves(pointer):
            return TemporaryError(f"the object {self.where(pointer)} arrived as {what}")
        return StepError(f"the object {self.where(pointer)} is not what its pointer names: {what}")

    def store(self, pointer: Pointer, path: Path) -> None:
        """The remote holds these bytes and has proved it; no commit may name them before.

        An object that is there already is not sent again. Raises TemporaryError.
        """
        if self.proves(pointer):
            return
        self.send(pointer, path)
        if not self.proves(pointer):
            raise TemporaryError(f"the object {self.where(pointer)} is not what was sent")

    def send(self, pointer: Pointer, path: Path) -> None:
        """The server has the bytes of `path`; it refuses any whose MD5 is not the pointer's."""
        place = self.place(pointer)
        with asking(self.where(pointer)), path.open("rb") as file:
            if pointer.size > SINGLE_PUT:
                self.s3.upload_fileobj(file, place["Bucket"], place["Key"])
            else:
                checksum = base64.b64encode(bytes.fromhex(pointer.md5)).decode()
                self.s3.put_object(**place, Body=file, ContentMD5=checksum)

    def proves(self, pointer: Pointer) -> bool:
        """Whether the server says, of what it stores, that it is exactly these bytes.

        The entity tag of a single PUT is the MD5 that the server computed; of several parts or
        under KMS it is not (S3 API reference, Object, ETag): then the bytes are read back.
        """
        try:
            head = self.head(pointer)
        except Missing:
            return False
        tag = head["ETag"].strip('"')
        if tag != pointer.md5 and ("-" in tag or "SSEKMSKeyId" in head):
            tag = self.rehash(pointer)
        return bool(tag == pointer.md5 and head["ContentLength"] == pointer.size)

    def head(self, pointer: Pointer) -> dict[str, Any]:
        """What the server says of the object, its entity tag in any case. Raises as `asking` does.

        An answer to HEAD has no body that could name its error (S3 API reference, HeadObject): GET
        is asked why. Not of a server that fails: boto3 has waited for that one.
        """
        where = self.where(pointer)
        with asking(where):
            try:
                said = dict(self.s3.head_object(**self.place(pointer)))
            except ClientError as error:
                if status(error) >= SERVER_FAILS:
                    raise
                said = self.begin(pointer)
        if "ETag" not in said:
            raise TemporaryError(f"what answered for {where} gives no ETag, which S3 always does")
        return said

    def begin(self, pointer: Pointer) -> dict[str, Any]:
        """What the server says of the object before it sends its bytes; none is read."""
        with asking(self.where(pointer)):
            said = dict(self.s3.get_object(**self.place(pointer)))
            said.pop("Body").close()
            return said

    def rehash(self, pointer: Pointer) -> str:
        """The MD5 of the bytes that the server sends back."""
        with asking(self.where(pointer)):
            body = self.s3.get_object(**self.place(pointer))["Body"]
            return md5_of_blocks(body.iter_chunks(BLOCK))

    def place(self, pointer: Pointer) -> dict[str, str]:
        """Bucket and key under which DVC keeps these bytes."""
        bucket, _, key = str(self.objects.oid_to_path(pointer.md5)).partition("/")
        return {"Bucket": bucket, "Key": key}

    def where(self, pointer: Pointer) -> str:
        return "s3://{Bucket}/{Key}".format(**self.place(pointer))


def impatient(repo: Repo) -> Repo:
    """The same, with deadlines for its default remote; what the clone's files say stays theirs."""
    remote = repo.config["remote"].get(repo.config["core"].get("remote"))
    if remote is not None:
        remote |= {"connect_timeout": CONNECT, "read_timeout": READ}
    return repo


@contextmanager
def asking(where: str) -> Iterator[None]:
    """boto3's failures, told apart: missing, refused, or worth another try.

    An S3 server names its error (S3 API reference, Error responses). While a server is restarted, a
    request can reach a proxy, whose 404 or 403 says nothing of the object.
    """
    try:
        yield
    except ClientError as error:
        raise told(error, where) from error
    except BotoCoreError as error:
        raise TemporaryError(f"no answer from S3 for {where}: {error}") from error


def told(error: ClientError, where: str) -> StepError:
    """What an answer means for a step. boto3 takes the status for the name where it has none."""
    code = error.response.get("Error", {}).get("Code") or ""
    if not code or code.isdigit():
        return TemporaryError(f"what answered {status(error)} for {where} names no S3 error")
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


def status(error: ClientError) -> int:
    """The HTTP status of the answer."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
