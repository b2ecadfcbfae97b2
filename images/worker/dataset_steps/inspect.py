"""`inspect`: what a CSV file holds, or why no record can be appended to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_steps.errors import StepError
from dataset_steps.files import read_blocks
from dataset_steps.table import NoRecord, Table, TableError


def inspect(path: Path) -> int:
    """Print one JSON object, and return the exit code.

    It is 0 with `columns`, `records`, `size` in bytes and `md5`, or 65 with the kind of the first
    `fault`, `what` it is and the `fix`.
    """
    try:
        print(json.dumps(describe(path)))
    except TableError as error:
        print(json.dumps({"fault": error.kind, "what": error.what, "fix": error.fix}))
        return StepError.exit_code
    except OSError as error:
        what = f"{path}: can't be read ({error.strerror})"
        print(json.dumps({"fault": "unreadable", "what": what, "fix": "copy it elsewhere"}))
        return StepError.exit_code
    return 0


def describe(path: Path) -> dict[str, Any]:
    """Return the columns, the number of records, the size and the MD5 of a table.

    The file is read once; memory stays the same for every size. Raise TableError.
    """
    digest = hashlib.md5(usedforsecurity=False)

    def hashed_blocks() -> Iterator[bytes]:
        for block in read_blocks(file):
            digest.update(block)
            yield block

    with path.open("rb") as file:
        table = Table(hashed_blocks(), str(path))
        records = sum(block.count_records() for block in table.regular_blocks())
        if not records:
            raise NoRecord(f"{path}: has no record", "append one: a run draws from it")
        return {
            "columns": table.columns,
            "records": records,
            "size": file.tell(),
            "md5": digest.hexdigest(),
        }
