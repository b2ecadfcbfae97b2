"""Pull the dataset, append a record, publish the new version: one commit per run.

It runs each night, when somebody pushes to the datasets, and when triggered by hand. Its own pushes
start no run. The log of `modify_data` says which column was counted on, and why.
"""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule, Param

from steps import DEFAULTS, PUSHED_DATASETS, clock, named, publish, pull, step

KEY = {"KEY_COLUMN": "{{ params.key or '' }}"}

with DAG(
    named("dataset_pipeline"),
    description="Pull a dataset with DVC, append a record, push the new version and its pointer",
    schedule=AssetOrTimeSchedule(timetable=clock("0 2 * * *"), assets=[PUSHED_DATASETS]),
    catchup=False,
    default_args=DEFAULTS,
    params={
        "key": Param(
            None,
            type=["null", "string"],
            description="The column that is counted on; without a name it is guessed",
        )
    },
    tags=["data", "dvc"],
    doc_md=__doc__,
):
    (
        pull("dataset", task_id="pull_data")
        >> step("modify_data", "dataset-steps", "modify", repeatable=True, variables=KEY)
        >> publish("dataset", message="append a record to", task_id="push_data")
    )
