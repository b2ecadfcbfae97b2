"""The assets of the pipelines: a run that updates one can start runs of other DAGs.

Assets that staging makes start nothing in production; those from outside start runs in both.
An asset's URI is its identity: it is the same on a cluster whose bucket has another name.
"""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from lab_arrivals import NewObjects
from steps import named

# The prefix and the suffix of the keys of files that arrive.
SALES_LANDING, SALES_FILES = "landing/sales/", ".csv"

EMPLOYEE_SUMMARY = Asset(
    name=named("employee_summary"),
    uri=f"s3://lab-datasets/results/{named('etl_workflow')}/employee_summary.json",
)

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
