"""`clean`: what arrived twice or incomplete is dropped."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def clean(orders: Path) -> None:
    """Leave each order in the directory's files once, and none without a customer.

    A file that is clean stays as it is, byte for byte. Raise ValueError when there is no file.
    """
    for file in list_months(orders):
        found = pl.read_parquet(file)
        kept = found.drop_nulls("customer").unique("order_id", keep="first").sort("order_id")
        if not kept.equals(found):
            part = file.with_suffix(".part")  # not into the file that is being read
            kept.write_parquet(part)
            part.replace(file)
        print(f"{file.name}: {found.height - kept.height} of {found.height} orders dropped")


def list_months(orders: Path) -> list[Path]:
    """List the directory's files, one for each month. Raise ValueError when there is none."""
    if not (files := sorted(orders.glob("*.parquet"))):
        raise ValueError(f"{orders} has no *.parquet: there is nothing to do")
    return files
