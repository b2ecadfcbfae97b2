"""Extract, transform, load: a report on the newest version of the dataset.

On Kubernetes each task runs in a pod of its own. They hand each other small typed values: the
version and its statistics. The data itself stays where it is. The report,
`results/sample_etl/report.json` in the lab's bucket, names the data and the run it was made from;
it is replaced as a whole, so a dataset that cannot be read leaves the old one as it was.

A run starts when `etl_workflow` has made a new summary, or by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException

import dataset_versions
import lab_bucket
from assets import EMPLOYEE_SUMMARY
from dataset_statistics import Statistics, compute_statistics
from dataset_steps.table import Table, TableError
from dataset_versions import Version
from steps import IN_A_POD, named

REPORT = f"results/{named('sample_etl')}/report.json"


class Cause(TypedDict):
    """An asset event that started the run, and the run that made the event, if one did."""

    asset: str
    dag_id: str | None
    run_id: str | None


def list_causes(events: Mapping[Any, Any]) -> list[Cause]:
    """Return the asset events that started the run; none when it was started by hand."""
    return [
        {"asset": asset.name, "dag_id": event.source_dag_id, "run_id": event.source_run_id}
        for asset, asset_events in events.items()
        for event in asset_events
    ]


with DAG(
    named("sample_etl"),
    description="What the newest version of the dataset holds, as a report",
    schedule=[EMPLOYEE_SUMMARY],
    catchup=False,
    max_active_runs=1,  # so that an older run never replaces a newer one's report
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=3),
        "execution_timeout": timedelta(hours=1),
        "multiple_outputs": False,
    },
    params={
        "group_by": Param("Job Role", type="string", description="The column that makes groups")
    },
    tags=["data"],
    doc_md=__doc__,
):

    @task(**IN_A_POD)
    def extract() -> Version:
        """Return the newest version of the dataset."""
        version = dataset_versions.find_newest_version()
        print(json.dumps(version, indent=1))
        return version

    @task(**IN_A_POD)
    def transform(version: Version, params: Mapping[str, Any]) -> Statistics:
        """Return the version's statistics. Raise AirflowFailException if it is no such table."""
        blocks = dataset_versions.read_blocks(version)
        where = f"{version['path']} at {version['commit']}"
        try:
            found = compute_statistics(Table(blocks, where), params["group_by"])
        except (TableError, ValueError) as error:
            for _ in blocks:
                pass  # to the end, where bytes that are not the pointer's raise their own error
            raise AirflowFailException(str(error)) from error
        print(f"{found['records']} records in {len(found['groups'])} groups")
        return found

    @task(**IN_A_POD)
    def load(version: Version, found: Statistics, run_id: str, triggering_asset_events: Any) -> str:
        """Write the report to the bucket. Return its key."""
        why = list_causes(triggering_asset_events)
        report = {"run_id": run_id, "caused_by": why, "version": version, **found}
        lab_bucket.write(REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
        print(f"{REPORT}: {found['records']} records of {version['commit']}")
        return REPORT

    extracted = extract()
    load(extracted, transform(extracted))
