"""What the pipeline guarantees, on a fresh lab that the kit's fixture brings up."""

from __future__ import annotations

import polars as pl

from lab.lab import Lab


def test_each_order_is_there_once_and_in_the_summary(lab: Lab) -> None:
    lab.run("churn_pipeline")
    orders, summary = pl.read_parquet(lab.data("orders")), pl.read_parquet(lab.data("summary"))
    assert orders["order_id"].is_unique().all()
    assert summary["orders"].sum() == orders.height
    assert lab.verify().ok
