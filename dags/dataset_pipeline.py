"""Pull the dataset, append a record, publish the new version: one commit per run.

It runs each night, when somebody pushes to the datasets, and when triggered by hand. Its own pushes
start no run.
"""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule

from assets import PUSHED_DATASETS
from steps import DEFAULTS, clock, named, step

with DAG(
    named("dataset_pipeline"),
    description="Pull a dataset with DVC, append a record, push the new version and its pointer",
    schedule=AssetOrTimeSchedule(timetable=clock("0 2 * * *"), assets=[PUSHED_DATASETS]),
    catchup=False,
    default_args=DEFAULTS,
    tags=["data", "dvc"],
    doc_md=__doc__,
):
    step("pull_data", "pull") >> step("modify_data", "modify") >> step("push_data", "push")
