"""The files of a directory, in the remote: sent and fetched many at once, each proved."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from dvc_data.hashfile.hash import fobj_md5

from dataset_steps.content import Content, File, show
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import md5_of_blocks
from dataset_steps.parallel import Budget, for_each
from dataset_steps.pointer import Pointer
from dataset_steps.s3_errors import Missing, s3_errors
from dataset_steps.transfer import AT_ONCE, SMALL

if TYPE_CHECKING:
    from dataset_steps.remote import Remote

BUFFER = 16 * SMALL  # bytes of small files in memory
STREAMS = 8  # what boto3 and DVC do at once: large files, and what obstore can't do
DIGITS = set("0123456789abcdef")


@dataclass(frozen=True)
class Known:
    """What is known of a directory's files before any is sent."""

    base: Pointer | None  # the version that it replaces
    pulled: bool  # every file of the base was downloaded in this run
    journal: Path | None  # the objects that an earlier attempt confirmed


@dataclass(frozen=True)
class Listed:
    """One file as DVC's listing of a directory has it."""

    relpath: str
    md5: str


@dataclass(frozen=True)
class Sending:
    """The transfer of one directory's files to the remote."""

    remote: Remote
    pointer: Pointer
    place: Path
    old: set[str]  # MD5s of the version that it replaces, which may be there
    journal: Journal
    buffer: Budget = field(default_factory=lambda: Budget(BUFFER))
    streams: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(STREAMS))

    def store(self, file: File) -> None:
        """Store one file unless it is there, and have the server's own word that it is."""
        named = replace(self.pointer, md5=file.md5, size=file.size, nfiles=None)
        if file.size > SMALL or not self.store_fast(file, named):
            with self.streams:
                self.remote.store_object(named, self.place / file.relpath)
        self.journal.add(file.md5)

    def store_fast(self, file: File, named: Pointer) -> bool:
        """Store a small file. Return whether the server says that it has these bytes.

        Raise TemporaryError when the file was changed since it was measured: the server can't
        refuse it here.
        """
        fast, key = self.remote.fast_store(self.pointer), self.remote.location(named)["Key"]
        if fast is None:
            return False
        if file.md5 in self.old and fast.head(key) == (file.md5, file.size):
            return True
        with self.buffer.holding(file.size):
            with (self.place / file.relpath).open("rb") as source:
                content = source.read(file.size + 1)  # it may have grown
            if md5_of_blocks([content]) != file.md5:
                raise TemporaryError(f"{show(file.relpath)} was changed while it was stored")
            return fast.put(key, content) == file.md5


class Journal:
    """The objects that are confirmed, a line for each, in a file that outlives the process."""

    def __init__(self, path: Path | None, place: str) -> None:
        """Read which MD5s an earlier attempt has confirmed at this place of a remote.

        The data sets of a run may have different ones. A line that was cut off tells nothing.
        """
        self.path, self.place = path, place
        text = path.read_text("utf-8", "replace") if path and path.exists() else ""
        lines = (line.partition(" ") for line in text.split("\n"))
        self.known = {md5 for md5, _, where in lines if where == place and is_md5(md5)}
        self.descriptor = -1

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have `add` write to the file while the block runs."""
        if self.path is None:
            yield
            return
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            yield
        finally:
            os.close(self.descriptor)
            self.descriptor = -1

    def add(self, md5: str) -> None:
        """Record one object, by a line of its own: several threads do."""
        if self.descriptor >= 0:
            os.write(self.descriptor, f"\n{md5} {self.place}\n".encode())


def is_md5(text: Any) -> bool:
    """Return whether this is an MD5 in hexadecimal."""
    return isinstance(text, str) and len(text) == 32 and set(text) <= DIGITS


def store_files(remote: Remote, content: Content, place: Path, known: Known) -> None:
    """Store the files of a directory that are not known to be there, and verify each.

    Print how many were not. Raise StepError, and TemporaryError where a retry may help.
    """
    journal = Journal(known.journal, str(remote.objects(content.pointer).path))
    old = list_old_files(remote, content.pointer, known.base)
    there = journal.known | (old if known.pulled else set())
    missing = {file.md5: file for file in content.files if file.md5 not in there}
    sending = Sending(remote, content.pointer, place, old, journal)
    remote.fast_store(content.pointer)  # made before there are threads
    with journal.open():
        for_each(missing.values(), sending.store, AT_ONCE)
    count = len({file.md5 for file in content.files})
    print(f"stored {len(missing)} objects of a directory that has {count}")


def list_old_files(remote: Remote, pointer: Pointer, base: Pointer | None) -> set[str]:
    """Return the MD5s of a version that is in the same place as the new one will be, if any."""
    if base is None or not base.is_directory or base.legacy or base.remote != pointer.remote:
        return set()
    try:
        return {file.md5 for file in read_listing(remote, base)}
    except Missing:
        return set()


# --- Down -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fetching:
    """The transfer of one directory's files from the remote."""

    remote: Remote
    pointer: Pointer
    folder: Path
    sizes: list[int] = field(default_factory=list)
    buffer: Budget = field(default_factory=lambda: Budget(BUFFER))
    streams: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(STREAMS))

    def fetch(self, files: list[Listed]) -> None:
        """Fetch one object to the place of each file that has these bytes."""
        first, *others = (self.folder / file.relpath for file in files)
        named = replace(self.pointer, md5=files[0].md5, nfiles=None)
        if not self.fetch_fast(named, first):
            with self.streams:
                size = self.remote.head(named)["ContentLength"]  # no listing says it
                self.remote.fetch(replace(named, size=size), first)
        for path in others:
            shutil.copyfile(first, path)
        self.sizes.append(first.stat().st_size * len(files))

    def fetch_fast(self, named: Pointer, into: Path) -> bool:
        """Fetch a small object. Return whether its bytes are those that its name says."""
        fast = self.remote.fast_store(self.pointer)
        found = fast.get(self.remote.location(named)["Key"]) if fast else None
        if found is None or found.size > SMALL:
            return False
        with self.buffer.holding(found.size):
            content = found.read()
            if content is None or self.hash_as_named(content) != named.md5:
                return False
            into.write_bytes(content)
        return True

    def hash_as_named(self, content: Any) -> str:
        """Return the hash by which DVC names an object of these bytes."""
        if self.pointer.legacy:
            name = self.remote.objects(self.pointer).hash_name
            return str(fobj_md5(io.BytesIO(content), name=name))
        return hashlib.md5(content, usedforsecurity=False).hexdigest()


def download(remote: Remote, pointer: Pointer, folder: Path) -> None:
    """Make the directory that the pointer names at `folder`, where nothing is yet.

    Raise StepError when the remote lacks an object or holds other bytes under its name.
    """
    files = read_listing(remote, pointer)
    for parent in {str(PurePosixPath(file.relpath).parent) for file in files}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    by_md5: dict[str, list[Listed]] = {}
    for file in files:
        by_md5.setdefault(file.md5, []).append(file)
    fetching = Fetching(remote, pointer, folder)
    remote.fast_store(pointer)  # made before there are threads
    for_each(by_md5.values(), fetching.fetch, AT_ONCE)
    if (size := sum(fetching.sizes)) != pointer.size:
        raise StepError(
            f"the files of {remote.url(pointer)} have {size} bytes, and its pointer says "
            f"{pointer.size}: `dvc add` the directory again"
        )


def read_listing(remote: Remote, pointer: Pointer) -> list[Listed]:
    """Return the files that DVC's listing of a directory names.

    Raise Missing when the remote lacks it, and StepError when it is no such listing.
    """
    where = remote.url(pointer)
    with s3_errors(where):
        place = remote.location(pointer)
        content: bytes = remote.s3(pointer).get_object(**place)["Body"].read()
    if (md5 := md5_of_blocks([content])) != pointer.bytes_md5:
        raise remote.wrong_bytes_error(pointer, f"{len(content)} bytes with MD5 {md5}")
    try:
        files = [Listed(entry["relpath"], entry["md5"]) for entry in json.loads(content)]
        require_sound(files)
    except (ValueError, TypeError, KeyError) as error:
        raise StepError(f"the object {where} is no listing of a directory: {error}") from error
    return files


def require_sound(files: list[Listed]) -> None:
    """Raise ValueError for a file outside of the directory, two at one place, or without a hash."""
    names = {file.relpath for file in files}
    if len(names) < len(files) or not files:
        raise ValueError("it names no file, or one twice")
    for file in files:
        path = PurePosixPath(file.relpath)
        is_inside = not path.is_absolute() and ".." not in path.parts and path.parts
        if not is_inside or str(path) != file.relpath or b"\0" in file.relpath.encode():
            raise ValueError(f"it names {show(file.relpath)}")
        if not is_md5(file.md5):
            raise ValueError(f"it has {file.md5!r} for the MD5 of {show(file.relpath)}")
        if inside := names & {str(parent) for parent in path.parents}:
            raise ValueError(f"it has a file inside of the file {show(inside.pop())}")
