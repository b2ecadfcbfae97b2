"""What a data set is, in numbers: its files, their bytes, and the rows of those that are tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

csv.field_size_limit(2**31 - 1)  # a field may be as long as it likes


def report(data: Path, file: Path) -> None:
    """Write the numbers of a file or directory as JSON. Raise ValueError for a broken table."""
    files = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else [data]
    found = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    tables = [path for path in files if path.suffix in ROWS]
    if tables:
        found["rows"] = sum(ROWS[path.suffix](path) for path in tables)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{json.dumps(found, indent=2)}\n", "utf-8")
    print(f"{data.name}: {', '.join(f'{number} {what}' for what, number in found.items())}")


def count_parquet(path: Path) -> int:
    try:
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except PolarsError as error:
        raise ValueError(f"{path} is no Parquet: {error}") from error


def count_csv(path: Path) -> int:
    """Return the number of records below the header."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return max(sum(1 for record in csv.reader(file) if record) - 1, 0)


ROWS: Mapping[str, Callable[[Path], int]] = {".parquet": count_parquet, ".csv": count_csv}
