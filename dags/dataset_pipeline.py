"""Pull the dataset, append a record, publish the new version: one commit per run.

It runs each night, when somebody pushes to the datasets, and when it is asked to. Its own pushes
start nothing.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from assets import PUSHED_DATASETS
from steps import DEFAULTS, named, step

# A new lab waits for the next night. The minute is for a night that begins while this file is being
# read again; with `False` Airflow would make up for the last night until 04:24.
NIGHTLY = CronTriggerTimetable("0 2 * * *", timezone="UTC", run_immediately=timedelta(minutes=1))

with DAG(
    named("dataset_pipeline"),
    description="Pull a dataset with DVC, append a record, push the new version and its pointer",
    schedule=AssetOrTimeSchedule(timetable=NIGHTLY, assets=[PUSHED_DATASETS]),
    catchup=False,
    default_args=DEFAULTS,
    tags=["data", "dvc"],
    doc_md=__doc__,
):
    step("pull_data", "pull") >> step("modify_data", "modify") >> step("push_data", "push")
