"""The hashes by which DVC names data, against DVC's own."""

from __future__ import annotations

import io
from random import Random

import pytest
from dvc_data.hashfile.hash import fobj_md5

from lab.client.hashes import BLOCK, LEGACY, MD5, hash_blocks

CRLF = b"id,name\r\n1,Anna\r\n"
RANDOM = Random(7)
CONTENTS = {
    "empty": b"",
    "text": b"id,name\n1,Anna\n",
    "text of Windows": CRLF,
    "non-ASCII text": "id,Größe\r\n1,über 王小明\r\n".encode(),
    "more than a third is no ASCII": "王小明\r\n".encode() * 9,
    "binary": RANDOM.randbytes(999) + CRLF,
    "binary after a text's beginning": CRLF * 99 + b"\0" + CRLF,
    "a NUL in the beginning": b"\0" + CRLF * 99,
    "a line end across two blocks": b"x" * (BLOCK - 1) + b"\r\n" + CRLF,
    "binary in the second block": CRLF * (BLOCK // len(CRLF) + 1) + b"\0" * 600 + CRLF,
    "a whole block": b"\r\n" * (BLOCK // 2),
}


@pytest.mark.parametrize("name", [MD5, LEGACY])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("step", [BLOCK, 70_001])
def test_a_hash_is_the_one_that_dvc_takes(content: bytes, name: str, step: int) -> None:
    blocks = [content[at : at + step] for at in range(0, len(content), step)]
    assert hash_blocks(blocks, name) == (fobj_md5(io.BytesIO(content), name=name), len(content))
