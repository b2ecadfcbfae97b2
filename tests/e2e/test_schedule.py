"""A DAG pushed to the git server is live soon, and its cron schedule starts runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.lab import Lab
from lab.wait import NotYet, wait_until

DAG = "dataset_pipeline"


@contextmanager
def changing_dag(lab: Lab, old: str, new: str) -> Iterator[str]:
    """Replace `old` in the pushed DAG by `new`; restore it afterwards. Yields the commit."""
    with lab.clone("pipelines") as clone:
        file = clone / "dags" / f"{DAG}.py"
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new), "utf-8")
        try:
            yield push(lab, clone)
        finally:
            file.write_text(text, "utf-8")
            lab.wait_for_dag(DAG, push(lab, clone))


def push(lab: Lab, clone: Path) -> str:
    lab.git("commit", "--quiet", "--all", "--message", "change the schedule", cwd=clone)
    lab.git("push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return lab.git("rev-parse", "HEAD", cwd=clone).strip()


def test_a_cron_schedule_starts_a_run_of_the_pushed_version(lab: Lab) -> None:
    before = len(lab.history())

    def find_scheduled() -> str:
        newest = lab.dataset()
        if not newest.trailers.get("Run-Id", "").startswith("scheduled__"):
            raise NotYet(f"the newest commit is {newest}")
        return newest.trailers["Dag-Version"]

    with changing_dag(lab, '"0 2 * * *"', '"* * * * *"') as commit:
        lab.wait_for_dag(DAG, commit)
        assert wait_until(find_scheduled, what="a scheduled run", timeout=300, interval=1) == commit
    assert len(lab.history()) > before
    lab.verify()
