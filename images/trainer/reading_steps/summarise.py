"""`summarise`: what the readings of all days say, by sensor."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def summarise(readings: Path, summary: Path) -> None:
    """Write the summary of the directory's days to one file.

    The same days make the same bytes. Raise ValueError when there is no day.
    """
    days = sorted(readings.glob("*.parquet"))
    if not days:
        raise ValueError(f"{readings} has no day to summarise: collect one first")
    found = compute_summary(pl.scan_parquet(days))
    summary.parent.mkdir(parents=True, exist_ok=True)
    found.write_parquet(summary)
    print(f"summarised {found['readings'].sum()} readings of {len(days)} days")


def compute_summary(readings: pl.LazyFrame) -> pl.DataFrame:
    """Return the number of readings, the coldest, the warmest and the mean of each sensor."""
    degrees = pl.col("decidegrees")
    return (
        readings.group_by("sensor")
        .agg(
            readings=pl.len(),
            days=pl.col("time").dt.date().n_unique(),
            coldest=(degrees.min() / 10).round(1),
            warmest=(degrees.max() / 10).round(1),
            mean=(degrees.cast(pl.Int64).sum() / pl.len() / 10).round(3),
        )
        .sort("sensor")
        .collect()
    )
