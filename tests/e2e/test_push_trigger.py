"""A push of somebody's starts a run, once; the pushes of the steps start none."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import requests

from lab.client import runs
from lab.client.git import git
from lab.lab import Lab
from lab.wait import NotYet, until

DAG = "dataset_pipeline"
ASSET = "push:lab/datasets:main"
TRIGGERED = "asset_triggered__"


def push_by_a_person(lab: Lab) -> tuple[str, str]:
    """The commits before and after a person has pushed another README of the datasets."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "datasets"
        git(lab, "clone", "--quiet", lab.git_url, clone, cwd=Path(folder))
        before = git(lab, "rev-parse", "HEAD", cwd=clone).strip()
        readme = clone / "README.md"
        text = readme.read_text("utf-8") if readme.exists() else ""
        readme.write_text(f"{text}Seen after {before}.\n", "utf-8")
        git(lab, "add", "README.md", cwd=clone)
        git(lab, "commit", "--quiet", "--message", "Say what was seen", cwd=clone)
        git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
        return before, git(lab, "rev-parse", "HEAD", cwd=clone).strip()


def events_of(lab: Lab, commit: str) -> list[dict[str, Any]]:
    return [event for event in lab.events(ASSET) if event["after"] == commit]


def test_a_push_starts_a_run_and_the_runs_own_push_starts_none(lab: Lab) -> None:
    versions, events = lab.history(), lab.events(ASSET)
    before, after = push_by_a_person(lab)

    def published() -> str:
        newest = lab.dataset()
        run_id = newest.trailers.get("Run-Id", "")
        if newest in versions or not run_id.startswith(TRIGGERED):
            raise NotYet(f"the newest version is of {run_id or 'nobody'}")
        return run_id

    run_id = until(published, what="a run of the push", timeout=300, interval=0.5)
    made = {
        "repository": "lab/datasets",
        "ref": "refs/heads/main",
        "before": before,
        "after": after,
        "pusher": lab.git_user,
    }
    assert events_of(lab, after) == [made]
    run = runs.find(lab, DAG, run_id)
    assert run is not None
    lab.follow(run)
    # A run by hand later, whatever its steps have pushed would long have been heard of.
    again = lab.run(DAG)
    assert lab.dataset().trailers["Run-Id"] == again.id
    assert lab.events(ASSET) == [*events, made]
    triggered = [v.trailers["Run-Id"] for v in lab.history() if v not in versions]
    assert [name for name in triggered if name.startswith(TRIGGERED)] == [run_id]
    lab.verify()


@pytest.mark.parametrize(
    "given",
    [{}, {"Authorization": "Bearer wrong"}, {"X-Gitea-Signature": "0" * 64}],
    ids=["unsigned", "forged", "signed by another key"],
)
def test_a_push_that_nobody_vouches_for_makes_no_event(lab: Lab, given: dict[str, str]) -> None:
    before = lab.events(ASSET)
    body = {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": "1" * 40,
        "repository": {"full_name": "lab/datasets"},
        "pusher": {"login": lab.git_user},
    }
    url = f"{lab.airflow_url}/lab/push"
    assert requests.post(url, data=json.dumps(body), headers=given, timeout=30).status_code == 401
    login = {"Authorization": f"Bearer {runs.token(lab)}", **given}
    assert requests.post(url, data=json.dumps(body), headers=login, timeout=30).status_code == 401
    assert lab.events(ASSET) == before
