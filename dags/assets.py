"""What pipelines leave in the bucket, by name: a run that updates one can start others.

What is made in staging starts nothing in production; what comes from outside starts both.
An asset's URI is its identity: it stays the same on a cluster whose bucket is called otherwise.
"""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from lab_arrivals import NewObjects
from steps import named

SALES_LANDING, SALES_FILES = "landing/sales/", ".csv"  # the keys of what arrives, from and to

EMPLOYEE_SUMMARY = Asset(
    name=named("employee_summary"),
    uri=f"s3://lab-datasets/results/{named('etl_workflow')}/employee_summary.json",
)

# Somebody has pushed to the datasets, whom Airflow heard of by POST /lab/push.
PUSHED_DATASETS = Asset(name="push:lab/datasets:main", uri="x-push://lab/datasets/main")

LANDED_SALES = Asset(
    name="landed_sales",
    uri="s3://lab-datasets/landing/sales",
    watchers=[
        AssetWatcher(
            name="new_sales_files", trigger=NewObjects("landed_sales", SALES_LANDING, SALES_FILES)
        )
    ],
)

SALES_WAREHOUSE = Asset(
    name=named("sales_warehouse"),
    uri=f"s3://lab-datasets/results/{named('sales_pipeline')}/warehouse.csv",
)
