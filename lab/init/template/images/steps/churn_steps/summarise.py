"""`summarise`: what all orders say, by month."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .clean import list_months


def summarise(orders: Path, summary: Path) -> None:
    """Write the number of orders, of customers and of cents of each month to one file."""
    found = compute_summary(pl.scan_parquet(list_months(orders)))
    summary.parent.mkdir(parents=True, exist_ok=True)
    found.write_parquet(summary)
    print(f"summarised {found['orders'].sum()} orders of {found.height} months")


def compute_summary(orders: pl.LazyFrame) -> pl.DataFrame:
    return (
        orders.group_by(month=pl.col("ordered").dt.strftime("%Y-%m"))
        .agg(
            orders=pl.len(),
            customers=pl.col("customer").n_unique(),
            cents=pl.col("cents").sum(),
        )
        .sort("month")
        .collect()
    )
