"""The hashes by which DVC names data: the MD5 of its bytes, and the one that DVC 2 took."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

MD5, LEGACY = "md5", "md5-dos2unix"
BLOCK = 1 << 20  # bytes; DVC 2's hash depends on it
HEAD = 512  # bytes of a block by which DVC 2 takes it for text
TEXT = bytes(range(32, 127)) + b"\n\r\t\f\b"
MOST_OTHERS = 0.3  # of a text's bytes


def hash_blocks(blocks: Iterable[bytes], name: str = MD5) -> tuple[str, int]:
    """Return the hash that DVC calls `name`, in hex, and the number of bytes."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    for block in cut_evenly(blocks) if name == LEGACY else blocks:
        size += len(block)
        digest.update(convert_text(block) if name == LEGACY else block)
    return digest.hexdigest(), size


def cut_evenly(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks of the size in which DVC 2 reads a file."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= BLOCK:
            yield bytes(held[:BLOCK])
            del held[:BLOCK]
    if held:
        yield bytes(held)


def convert_text(block: bytes) -> bytes:
    """Return a block as DVC 2 hashes it: a text with LF where it has CRLF, all else as it is."""
    head = block[:HEAD]
    others = len(head.translate(None, TEXT))
    is_text = b"\0" not in head and others <= MOST_OTHERS * len(head)
    return block.replace(b"\r\n", b"\n") if is_text else block
