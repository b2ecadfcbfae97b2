"""A person's push starts a run, once; the steps' own pushes start none."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from lab.lab import Lab
from lab.wait import NotYet, wait_until

DAG = "dataset_pipeline"
ASSET = "push:lab/datasets:main"
TRIGGERED = "asset_triggered__"


def push_readme(lab: Lab) -> tuple[str, str]:
    """Push a change of the datasets' README, as a person; return the commits before and after."""
    with lab.clone() as clone:
        before = lab.git("rev-parse", "HEAD", cwd=clone).strip()
        readme = clone / "README.md"
        text = readme.read_text("utf-8") if readme.exists() else ""
        readme.write_text(f"{text}Seen after {before}.\n", "utf-8")
        lab.git("add", "README.md", cwd=clone)
        lab.git("commit", "--quiet", "--message", "Say what was seen", cwd=clone)
        lab.git("push", "--quiet", "origin", "HEAD:main", cwd=clone)
        return before, lab.git("rev-parse", "HEAD", cwd=clone).strip()


def list_events(lab: Lab, commit: str) -> list[dict[str, Any]]:
    return [event for event in lab.events(ASSET) if event["after"] == commit]


def test_a_push_starts_a_run_and_the_runs_own_push_starts_none(lab: Lab) -> None:
    versions, events = lab.history(), lab.events(ASSET)
    before, after = push_readme(lab)

    def find_triggered() -> str:
        newest = lab.dataset()
        run_id = newest.trailers.get("Run-Id", "")
        if newest in versions or not run_id.startswith(TRIGGERED):
            raise NotYet(f"the newest version is of {run_id or 'nobody'}")
        return run_id

    run_id = wait_until(find_triggered, what="a run of the push", timeout=300, interval=0.5)
    made = {
        "repository": "lab/datasets",
        "ref": "refs/heads/main",
        "before": before,
        "after": after,
        "pusher": lab.git_user,
    }
    assert list_events(lab, after) == [made]
    run = lab.find_run(DAG, run_id)
    assert run is not None
    lab.follow(run)
    # After another run by hand, any event of the steps' push would have come.
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
    with lab.airflow() as client:
        token = client.configuration.access_token
    login = {"Authorization": f"Bearer {token}", **given}
    assert requests.post(url, data=json.dumps(body), headers=login, timeout=30).status_code == 401
    assert lab.events(ASSET) == before
