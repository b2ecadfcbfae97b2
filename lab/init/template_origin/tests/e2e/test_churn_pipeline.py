"""What the pipeline guarantees, on a fresh lab that the kit's fixture brings up."""

from __future__ import annotations

import json

from lab.lab import Lab

REPORT = "metrics/measurements.json"


def test_a_run_reports_on_the_newest_version(lab: Lab) -> None:
    lab.run("churn_pipeline")
    data = lab.data("measurements")
    files = [path for path in data.rglob("*") if path.is_file()] if data.is_dir() else [data]
    with lab.clone() as clone:
        found = json.loads((clone / REPORT).read_text("utf-8"))
    assert found["files"] == len(files)
    assert lab.verify().ok
