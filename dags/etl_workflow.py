"""Extract, transform, load: a summary of the newest dataset by department, put into the bucket.

The transformation may use so much memory and no more. `copies` says how many copies of its input
it handles at once: with 1000 it needs more than it may have, and the run says what to raise. What
the steps ran in is kept for reading, for `keep_hours`, and removed by a later run.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from assets import EMPLOYEE_SUMMARY
from steps import DEFAULTS, KEEP_HOURS, named, step

COPIES = Param(
    1,
    type="integer",
    minimum=1,
    maximum=10_000,
    description="How many copies of the extract are handled in memory at once",
)

with DAG(
    named("etl_workflow"),
    description="Summarise the newest dataset by department, within limits of memory",
    schedule=None,
    catchup=False,
    # Of two results the one of the later run stays; and none removes what another still needs.
    max_active_runs=1,
    default_args=DEFAULTS,
    params={"copies": COPIES, "keep_hours": KEEP_HOURS},
    tags=["data", "etl"],
    doc_md=__doc__,
):
    extract = step("extract", "extract", keep=True)
    transform = step(
        "transform",
        "transform",
        memory="256Mi",
        keep=True,
        variables={"COPIES": "{{ params.copies }}"},
    )
    load = step("load", "load", keep=True, outlets=[EMPLOYEE_SUMMARY])
    extract >> transform >> load
