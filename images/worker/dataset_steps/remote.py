"""The DVC remote: DVC says where an object is; boto3 moves its bytes and verifies them."""

from __future__ import annotations

import base64
import io
import stat
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from dvc_data.hashfile.hash import file_md5, fobj_md5

from dataset_steps import configuration, directories
from dataset_steps import content as contents
from dataset_steps import pointer as pointers
from dataset_steps.configuration import CONNECT, READ
from dataset_steps.content import Content
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import BLOCK, md5_of_blocks, part_of, remove, write_blocks
from dataset_steps.pointer import Pointer
from dataset_steps.s3_errors import SERVER_FAILS, Missing, http_status, s3_errors
from dataset_steps.transfer import FastStore, open_store

SINGLE_PUT = 5 * 2**30  # bytes; the most that S3 takes in one PUT
CLIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 6},
    connect_timeout=CONNECT,
    read_timeout=READ,
)


class Remote:
    """The DVC remotes of one clone: the one that a pointer names, or the default one."""

    def __init__(self, repository: Path) -> None:
        """Read the clone's DVC configuration. Raise StepError when it is none."""
        self.repo = configuration.open_repository(repository)
        self.remotes: dict[str | None, Any] = {}  # DVC's, by their names; None is the default one
        self.clients: dict[str | None, Any] = {}
        self.fast: dict[str | None, FastStore | None] = {}
        self.parts = Lock()  # boto3 holds tens of MB of what it sends in parts

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

    def fast_store(self, pointer: Pointer) -> FastStore | None:
        """Return the bucket of such objects for many requests at once, if obstore can reach it."""
        if (name := pointer.remote) not in self.fast:
            bucket, options = self.location(pointer)["Bucket"], self.objects(pointer).fs.fs_args
            self.fast[name] = open_store(self.s3(pointer), bucket, options)
        return self.fast[name]

    def require_pullable(self, path: str) -> None:
        """Raise StepError unless DVC brings the data at this path back by its pointer."""
        configuration.require_pullable(self.repo, path)

    # --- Down -------------------------------------------------------------------------------------

    def download(self, pointer: Pointer, path: str, into: Path) -> str:
        """Have `into` be exactly what `pointer` names, a file or a directory; or leave nothing.

        Return the MD5 of a file's bytes, which is not the pointer's where DVC 2 made that of a text
        with CRLF, and "" for a directory.
        Raise StepError when the remote lacks an object or holds other bytes under its name.
        """
        self.require_pullable(path)
        part, md5 = part_of(into), ""
        remove(into)
        remove(part)
        try:
            if pointer.is_directory:
                directories.download(self, pointer, part)
            else:
                md5 = self.fetch(pointer, part)
                part.chmod(part.stat().st_mode | (stat.S_IEXEC if pointer.executable else 0))
            part.replace(into)
        finally:
            remove(part)  # what failed may have filled the disk
        return md5

    def fetch(self, pointer: Pointer, into: Path) -> str:
        """Write the bytes of one object to a file, and return their MD5.

        By boto3, which has a connection already: DVC's own file system would read S3's service
        model anew (0.1 s). By GET: HEAD may succeed with a key that may not decrypt the bytes.
        """
        with s3_errors(self.url(pointer)), into.open("wb") as file:
            body = self.s3(pointer).get_object(**self.location(pointer))["Body"]
            md5 = md5_of_blocks(write_blocks(body.iter_chunks(BLOCK), file))
        size, named = into.stat().st_size, md5
        if pointer.legacy:
            named = file_md5(str(into), name=self.objects(pointer).hash_name)
        if (named, size) != (pointer.md5, pointer.size):
            raise self.wrong_bytes_error(pointer, f"{size} bytes with MD5 {named}")
        return md5

    def wrong_bytes_error(self, pointer: Pointer, found: str) -> StepError:
        """Return the error for other bytes: the server holds others, or did not send them all."""
        if self.is_stored(pointer):
            return TemporaryError(f"the object {self.url(pointer)} arrived as {found}")
        return StepError(f"the object {self.url(pointer)} is not what its pointer names: {found}")

    # --- Up ---------------------------------------------------------------------------------------

    def measure(self, path: str, place: Path) -> Content:
        """Return what is at `place`, as a version of the data set at `path` of the clone.

        It is for the remote that the data set's pointer names. Raise the errors of
        `content.measure`.
        """
        root = Path(self.repo.root_dir, path)
        own = root.with_name(f"{root.name}.dvc")
        remote = pointers.read(own).remote if own.exists() else None

        def keep(folder: str, dirs: list[str], files: list[str]) -> tuple[list[str], list[str]]:
            """Return what DVC would not ignore if the data were at its path in the clone."""
            kept: tuple[list[str], list[str]] = self.repo.dvcignore(str(root / folder), dirs, files)
            return kept

        return contents.measure(path, place, keep, remote)

    def store(
        self,
        content: Content,
        place: Path,
        base: Pointer | None = None,
        *,
        pulled: bool = False,
        journal: Path | None = None,
    ) -> None:
        """Store what was measured at `place` and verify it; no commit may name it before.

        Files that the directory `base` has are looked for before they are sent; where it was
        `pulled` in this run they are known to be there. Each object that is confirmed is noted in
        `journal`: an attempt after one that was cut off goes on from there. Raise TemporaryError.
        """
        if content.pointer.is_directory:
            directories.store_files(self, content, place, directories.Known(base, pulled, journal))
            self.store_object(content.pointer, content.listing)  # last: DVC takes the rest for done
        else:
            self.store_object(content.pointer, place)

    def store_object(self, pointer: Pointer, source: Path | bytes) -> None:
        """Store the bytes of one object and verify them, unless it is stored already.

        Raise TemporaryError.
        """
        if self.is_stored(pointer):
            return
        self.send(pointer, source)
        if not self.is_stored(pointer):
            raise TemporaryError(f"the object {self.url(pointer)} is not what was sent")

    def send(self, pointer: Pointer, source: Path | bytes) -> None:
        """Upload one object; the server refuses bytes whose MD5 is not the pointer's.

        The remote's options may ask for encryption or for an ACL.
        """
        place, s3 = self.location(pointer), self.s3(pointer)
        options = self.objects(pointer).fs.fs_args.get("s3_additional_kwargs", {})
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with s3_errors(self.url(pointer)), open_source(source) as file:
            if size > SINGLE_PUT:
                with self.parts:
                    s3.upload_fileobj(file, place["Bucket"], place["Key"], ExtraArgs=options)
            else:
                checksum = base64.b64encode(bytes.fromhex(pointer.bytes_md5)).decode()
                s3.put_object(**place, **options, Body=file, ContentMD5=checksum)

    def is_stored(self, pointer: Pointer) -> bool:
        """Return whether the server stores exactly these bytes, by its own account.

        The ETag of a single PUT is the MD5 that the server computed; of several parts or under KMS
        it is not (S3 API reference, Object, ETag), and the one that DVC 2 made of a text with CRLF
        is none of the bytes: then these are read back. The size of a directory's pointer is that of
        its files, and not of the object that lists them.
        """
        try:
            head = self.head(pointer)
        except Missing:
            return False
        tag = head["ETag"].strip('"')
        if tag != pointer.bytes_md5 and ("-" in tag or "SSEKMSKeyId" in head or pointer.legacy):
            tag = self.hash_object(pointer)
        is_whole = pointer.is_directory or head["ContentLength"] == pointer.size
        return bool(tag == pointer.bytes_md5 and is_whole)

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


def open_source(source: Path | bytes) -> BinaryIO:
    """Open what is to be sent: a file, or bytes."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
