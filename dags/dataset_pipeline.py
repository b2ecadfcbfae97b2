"""Pull the dataset, append a record, publish the new version: one commit per run."""

from __future__ import annotations

from airflow.sdk import DAG

from steps import DEFAULTS, step

with DAG(
    "dataset_pipeline",
    description="Pull a dataset with DVC, append a record, push the new version and its pointer",
    schedule=None,
    catchup=False,
    default_args=DEFAULTS,
    tags=["data", "dvc"],
    doc_md=__doc__,
):
    step("pull_data", "pull") >> step("modify_data", "modify") >> step("push_data", "push")
