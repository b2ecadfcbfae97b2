"""The objects that versions name: each must be in its bucket, with the bytes of its hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from lab.client import s3
from lab.client.hashes import BLOCK, MD5, hash_blocks
from lab.errors import ProofError
from lab.model import Access


@dataclass(frozen=True)
class Named:
    """An object, and what it must hold."""

    endpoint: str | None  # None: the lab's own
    bucket: str
    key: str
    hash: str  # how DVC calls the kind of hash
    md5: str
    size: int | None  # bytes; None where nobody says
    by: str  # whoever says so

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Bucket:
    """The S3 servers that hold the objects, read with the lab's key. Threads may share it."""

    lab: Access
    clients: dict[str | None, Any] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def client(self, endpoint: str | None) -> Any:
        """Return the client of a server, which is the lab's unless it has an address of its own."""
        with self.lock:
            if endpoint not in self.clients:
                address = endpoint or self.lab.s3_endpoint
                self.clients[endpoint] = s3.create_client(replace(self.lab, s3_endpoint=address))
            return self.clients[endpoint]

    def check(self, named: Named) -> None:
        """Check that the server holds the bytes: by its ETag, or by reading where that is another.

        The ETag of an object that was sent in parts, or is encrypted, is no MD5, and DVC 2's hash
        of a text is none of its bytes. Raises ProofError.
        """
        with s3.translating_errors(f"object {named.url}, which {named.by} names"):
            head = self.client(named.endpoint).head_object(Bucket=named.bucket, Key=named.key)
        size = head["ContentLength"]
        if head["ETag"].strip('"') != named.md5 or named.size not in {None, size}:
            self.compare(named, *hash_blocks(self.read(named), named.hash))

    def fetch(self, named: Named, into: Path) -> None:
        """Download an object to a file, and check its bytes. Raises ProofError."""
        with into.open("wb") as file:
            self.copy(named, file)

    def copy(self, named: Named, into: BinaryIO) -> None:
        """Write an object's bytes to `into`, and check them. Raises ProofError."""
        self.compare(named, *hash_blocks(write_through(self.read(named), into), named.hash))

    def read(self, named: Named) -> Iterator[bytes]:
        """Yield the bytes that the server sends. Raises ProofError without such an object."""
        with s3.translating_errors(f"object {named.url}, which {named.by} names"):
            reply = self.client(named.endpoint).get_object(Bucket=named.bucket, Key=named.key)
            yield from reply["Body"].iter_chunks(BLOCK)

    @staticmethod
    def compare(named: Named, md5: str, size: int) -> None:
        """Raise ProofError unless these are the hash and the size that the object must have."""
        if md5 != named.md5 or named.size not in {None, size}:
            kind = "MD5" if named.hash == MD5 else named.hash
            wanted = named.md5 if named.size is None else f"{named.size} and {named.md5}"
            raise ProofError(
                f"{named.url} holds {size} bytes with {kind} {md5}; {named.by} says {wanted}",
                s3.RESTORE,
            )


def write_through(blocks: Iterable[bytes], into: BinaryIO) -> Iterator[bytes]:
    """Yield the blocks, each after it was written to the file."""
    for block in blocks:
        into.write(block)
        yield block
