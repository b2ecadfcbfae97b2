"""Atomic writes of files, and their hashes."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _csv import Writer

BLOCK = 1 << 20  # bytes read at a time; memory stays the same for every dataset size


def part_of(path: Path) -> Path:
    """Return where `path` is written before it takes its place; the same in each attempt.

    The name is short: that of `path` may be as long as a name can be.
    """
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.part")


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, unless there is none. Raise OSError if that fails."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`, on disk and not only in memory, or leave it as it was."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block ends, unless it fails."""
    part = part_of(path)
    with part.open("wb") as file:
        yield file
        file.flush()
        sync_to_disk(file.fileno())
    part.replace(path)


@contextmanager
def atomic_csv_writer(path: Path) -> Iterator[Writer]:
    """Yield a CSV writer whose file replaces `path` when the block ends, unless it fails."""
    with atomic_write(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            # Python 3.11 quotes a field with \r only if \r is a part of the line end.
            yield csv.writer(text, lineterminator="\r\n")
        finally:
            text.detach()  # `atomic_write` closes the file


def sync_to_disk(descriptor: int) -> None:
    """Wait until all that was written to `descriptor` is on disk."""
    os.fsync(descriptor)


def md5_of(path: Path) -> str:
    """Return the MD5 of `path` in hexadecimal, by which DVC names an object."""
    with path.open("rb") as file:
        return md5_of_blocks(read_blocks(file))


def md5_of_prefix_and_all(path: Path, size: int) -> tuple[str, str]:
    """Return the MD5s of the first `size` bytes and of all bytes of `path`, read once."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for block in read_blocks(file, size):
            digest.update(block)
        first = digest.hexdigest()
        for block in read_blocks(file):
            digest.update(block)
    return first, digest.hexdigest()


def md5_of_blocks(parts: Iterable[bytes]) -> str:
    """Return the MD5 of the concatenated blocks."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in parts:
        digest.update(block)
    return digest.hexdigest()


def read_blocks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Yield the next `size` bytes of `file` (all that are left when None), block by block."""
    while block := file.read(BLOCK if size is None else min(BLOCK, size)):
        yield block
        if size is not None:
            size -= len(block)


def write_blocks(blocks: Iterable[bytes], file: BinaryIO) -> Iterator[bytes]:
    """Write each block to `file`, and yield it."""
    for block in blocks:
        file.write(block)
        yield block
