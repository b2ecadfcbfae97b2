"""Report on `measurements`: how many files, bytes and rows its newest version has.

The report is a small file of metrics in the commit, which `dvc metrics show` and `dvc metrics diff`
read. A run that finds nothing new makes no commit.
"""

from __future__ import annotations

from airflow.sdk import DAG

from steps import DEFAULTS, clock, named, publish, pull, step

STEPS = ("python", "-m", "churn_steps")  # of the image `steps`
REPORT = "metrics/measurements.json"

with DAG(
    named("churn_pipeline"),
    description="Report on the newest version of the data",
    schedule=clock("0 4 * * *"),  # UTC
    catchup=False,
    default_args=DEFAULTS,
    tags=["data"],
    doc_md=__doc__,
):
    (
        pull("measurements")
        >> step("report", *STEPS, "measurements", REPORT, image="steps")
        >> publish("measurements", metrics=[REPORT], message="report on")
    )
