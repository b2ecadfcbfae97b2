"""Collect one more day of readings, and summarise all of them: two data sets in one commit.

`readings` is a directory of Parquet files, `readings_summary` one file. The steps are in polars and
know nothing of the lab but their environment: this is how a pipeline of one's own looks. A day that
is there already changes no byte, and such a run makes no commit.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param

from steps import DEFAULTS, named, publish, pull, step

# The image with polars; the worker's, in which `publish` runs, has none.
POLARS: dict[str, Any] = {"template": "model"}

with DAG(
    named("readings_pipeline"),
    description="Collect a day of readings with polars, summarise all days, publish both",
    schedule=None,
    catchup=False,
    default_args=DEFAULTS,
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The day that is collected; without it, the one after the newest",
        )
    },
    tags=["data", "dvc"],
    doc_md=__doc__,
):
    (
        pull("readings", optional=True)
        >> step(
            "collect_readings",
            "reading-steps",
            "collect",
            variables={"DAY": "{{ params.day or '' }}"},
            **POLARS,
        )
        >> step("summarise_readings", "reading-steps", "summarise", **POLARS)
        >> publish("readings", "readings_summary", message="add a day to")
    )
