"""Extract, transform, load: a summary of the newest dataset by department, in the bucket.

The transformation has a memory limit. `copies` is the number of copies of its input that it holds
in memory at once: 1000 exceed the limit, and the failed run names the setting to raise. The steps'
pods and workspaces are kept for inspection for `keep_hours`, and removed by a later run.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from assets import EMPLOYEE_SUMMARY
from steps import DEFAULTS, KEEP_HOURS, named, pull, step

COPIES = Param(
    1,
    type="integer",
    minimum=1,
    maximum=10_000,
    description="How many copies of the extract are handled in memory at once",
)

with DAG(
    named("etl_workflow"),
    description="Summarise the newest dataset by department, within a memory limit",
    schedule=None,
    catchup=False,
    # The later run's result must be the one that stays, and no run may remove what another uses.
    max_active_runs=1,
    default_args=DEFAULTS,
    params={"copies": COPIES, "keep_hours": KEEP_HOURS},
    tags=["data", "etl"],
    doc_md=__doc__,
):
    extract = step("extract", "dataset-steps", "extract", keep=True, repeatable=True)
    transform = step(
        "transform",
        "dataset-steps",
        "transform",
        memory="256Mi",
        keep=True,
        repeatable=True,
        variables={"COPIES": "{{ params.copies }}"},
    )
    load = step(
        "load", "dataset-steps", "load", keep=True, repeatable=True, outlets=[EMPLOYEE_SUMMARY]
    )
    pull("dataset", keep=True) >> extract >> transform >> load
