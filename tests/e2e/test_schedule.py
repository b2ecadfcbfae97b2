"""A DAG pushed to the git server is live soon, and its cron schedule starts runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.client import runs
from lab.client.git import git
from lab.lab import Lab
from lab.wait import NotYet, until

DAG = "dataset_pipeline"


@contextmanager
def changed_dag(lab: Lab, old: str, new: str) -> Iterator[str]:
    """The pipelines' repository has `new` in the place of `old`; restored afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "pipelines"
        git(lab, "clone", "--quiet", lab.git_url.replace("datasets.git", "pipelines.git"), clone,
            cwd=Path(folder))  # fmt: skip
        file = clone / "dags" / f"{DAG}.py"
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new), "utf-8")
        try:
            yield push(lab, clone)
        finally:
            file.write_text(text, "utf-8")
            runs.await_dag(lab, DAG, push(lab, clone), 180)


def push(lab: Lab, clone: Path) -> str:
    git(lab, "commit", "--quiet", "--all", "--message", "change the schedule", cwd=clone)
    git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return git(lab, "rev-parse", "HEAD", cwd=clone).strip()


def test_a_cron_schedule_starts_a_run_of_the_pushed_version(lab: Lab) -> None:
    before = len(lab.history())

    def scheduled() -> str:
        newest = lab.dataset()
        if not newest.trailers.get("Run-Id", "").startswith("scheduled__"):
            raise NotYet(f"the newest commit is {newest}")
        return newest.trailers["Dag-Version"]

    with changed_dag(lab, '"0 2 * * *"', '"* * * * *"') as commit:
        runs.await_dag(lab, DAG, commit, 180)
        assert until(scheduled, what="a scheduled run", timeout=300, interval=1) == commit
    assert len(lab.history()) > before
    lab.verify()
