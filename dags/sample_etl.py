"""Extract, transform, load: what the newest version of the dataset holds, as a report.

Each task runs in a pod of its own where there are pods. They hand each other small typed values:
which version it is, and what was counted. The data itself stays where it is. The report,
`results/sample_etl/report.json` in the lab's bucket, says which data it was made of and by which
run; it is replaced whole, so what cannot be read leaves the old one as it was.

A run begins when `etl_workflow` has made a new summary, or by hand.
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
from dataset_statistics import Statistics, statistics
from dataset_versions import Version
from steps import IN_A_POD, named

REPORT = f"results/{named('sample_etl')}/report.json"


class Cause(TypedDict):
    """An event of an asset that began the run, and the run that made it, if one did."""

    asset: str
    dag_id: str | None
    run_id: str | None


def causes(events: Mapping[Any, Any]) -> list[Cause]:
    """Why the run began; nothing where a person began it."""
    return [
        {"asset": asset.name, "dag_id": event.source_dag_id, "run_id": event.source_run_id}
        for asset, of_asset in events.items()
        for event in of_asset
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
        """Which version of the dataset is the newest."""
        version = dataset_versions.newest()
        print(json.dumps(version, indent=1))
        return version

    @task(**IN_A_POD)
    def transform(version: Version, params: Mapping[str, Any]) -> Statistics:
        """What that version holds. Raises AirflowFailException when it is no such table."""
        blocks = dataset_versions.blocks(version)
        try:
            found = statistics(dataset_versions.lines(blocks), params["group_by"])
        except ValueError as error:
            for _ in blocks:
                pass  # were these other bytes than the pointer names, that would be the error
            where = f"{version['path']} at {version['commit']}"
            raise AirflowFailException(f"{where}: {error}") from error
        print(f"{found['records']} records in {len(found['groups'])} groups")
        return found

    @task(**IN_A_POD)
    def load(version: Version, found: Statistics, run_id: str, triggering_asset_events: Any) -> str:
        """The bucket has the report: its key."""
        why = causes(triggering_asset_events)
        report = {"run_id": run_id, "caused_by": why, "version": version, **found}
        lab_bucket.write(REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
        print(f"{REPORT}: {found['records']} records of {version['commit']}")
        return REPORT

    extracted = extract()
    load(extracted, transform(extracted))
