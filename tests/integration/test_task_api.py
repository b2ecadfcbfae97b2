"""The API that tasks talk to, built in its newest version only, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.config import KIT, PLUGINS

# What the api-server does when it starts: the plugin's part, then Airflow's.
PROGRAM = """
import json, sys
sys.argv = ["airflow", sys.argv[1]]
import lab_newest_api
lab_newest_api.keep_newest()
from fastapi.testclient import TestClient
from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
from airflow.api_fastapi.execution_api.versions import bundle
from airflow.sdk.api.datamodels._generated import API_VERSION

app = InProcessExecutionAPI().app
with TestClient(app) as client:
    answers = {
        version: client.get("/health/ping", headers={"Airflow-API-Version": version}).status_code
        for version in (API_VERSION, "2025-04-11")
    }
    paths = client.get("/openapi.json", params={"version": API_VERSION}).json()["paths"]
versions = [version.value for version in bundle.versions]
print(json.dumps([API_VERSION, versions, answers, sorted(paths)]))
"""


def build_api(
    component: str, folder: Path, **variables: str
) -> tuple[str, list[str], dict[str, int], list[str]]:
    """Return the tasks' own version, the API's versions, its answers by version, and its paths."""
    env = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-a-test" * 8,
        "PYTHONPATH": str(KIT / PLUGINS),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, component],
        env={**env, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not done.returncode, done.stderr
    found: tuple[str, list[str], dict[str, int], list[str]] = tuple(
        json.loads(done.stdout.splitlines()[-1])
    )
    return found


@pytest.mark.parametrize("component", ["api-server", "triggerer"])
def test_only_the_version_of_this_airflow_s_tasks_is_built(component: str, tmp_path: Path) -> None:
    own, versions, answers, paths = build_api(component, tmp_path, NEWEST_TASK_API_ONLY="1")
    assert versions == [own]
    assert answers[own] == 200
    assert "/task-instances/{task_instance_id}/run" in paths


def test_others_are_built_where_older_tasks_may_go_on(tmp_path: Path) -> None:
    own, versions, answers, _ = build_api("api-server", tmp_path)
    assert versions[0] == own
    assert len(versions) > 1
    assert set(answers.values()) == {200}
