"""Files that are there whole or not at all, and their hashes."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _csv import Writer

BLOCK = 1 << 20  # bytes read at a time; memory stays the same for every dataset size


def write_whole(path: Path, text: str) -> None:
    """`path` holds `text`, on the disk and not only in memory, or what it held before."""
    with whole(path) as file:
        file.write(text.encode())


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """What the block writes becomes `path` when it ends, and nothing of it does when it fails."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
        file.flush()
        flush(file.fileno())
    part.replace(path)


@contextmanager
def whole_csv(path: Path) -> Iterator[Writer]:
    """What the block writes are the records of `path` when it ends; none are when it fails."""
    with whole(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            yield csv.writer(text, lineterminator="\n")
        finally:
            text.detach()  # `whole` closes the file


def flush(descriptor: int) -> None:
    """All that was written to `descriptor` has reached the disk."""
    os.fsync(descriptor)


def md5_of(path: Path) -> str:
    """The MD5 of all bytes of `path`, in hexadecimal: what DVC names an object by."""
    with path.open("rb") as file:
        return md5_of_blocks(blocks(file))


def md5_of_both(path: Path, size: int) -> tuple[str, str]:
    """The MD5s of the first `size` bytes and of all bytes of `path`, read once."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for block in blocks(file, size):
            digest.update(block)
        first = digest.hexdigest()
        for block in blocks(file):
            digest.update(block)
    return first, digest.hexdigest()


def md5_of_blocks(parts: Iterable[bytes]) -> str:
    """The MD5 of these bytes, one after another."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in parts:
        digest.update(block)
    return digest.hexdigest()


def blocks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """The next `size` bytes of `file` (all that are left when None), block by block."""
    while block := file.read(BLOCK if size is None else min(BLOCK, size)):
        yield block
        if size is not None:
            size -= len(block)
