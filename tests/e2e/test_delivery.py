"""How DAGs reach Airflow: two branches of one repository, another team's, and broken files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from lab.config import Config
from lab.lab import Lab
from lab.model import BrokenFile
from lab.wait import NotYet, wait_until

DAG = "dataset_pipeline"
STAGING, PRODUCTION = "main", "release"
SECONDS = 90  # for what takes 5 s on an idle machine
REPOSITORIES = ("pipelines", "datasets", "team-a")

ONE_TASK = """\
from airflow.sdk import DAG, task
{imports}

with DAG({dag_id}, schedule=None, catchup=False):

    @task
    def say() -> str:
        return "{text}"

    say()
"""
# Its first task ends when the bucket has an object; the second returns text of its run's files.
TWO_TASKS = """\
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException
from datetime import timedelta

import lab_bucket
from said_by_a_test import TEXT

RETRY = {{"retries": 200, "retry_delay": timedelta(seconds=1)}}

with DAG("pinned_by_a_test", schedule=None, catchup=False, default_args=RETRY):

    @task
    def wait() -> None:
        if lab_bucket.read("{key}") is None:
            raise AirflowException("not yet")

    @task
    def say() -> str:
        return TEXT + " and {text}"

    wait() >> say()
"""


def push(lab: Lab, folder: Path, *branches: str) -> str:
    """Commit what is in the folder, push it to the branches and return the commit."""
    lab.git("add", "--all", cwd=folder)
    if lab.git("status", "--porcelain", cwd=folder):
        lab.git("commit", "--quiet", "--message", "by a test", cwd=folder)
    refs = [f"HEAD:refs/heads/{name}" for name in branches or (STAGING,)]
    lab.git("push", "--quiet", "origin", *refs, cwd=folder)
    return lab.git("rev-parse", "HEAD", cwd=folder).strip()


@contextmanager
def pushing_files(lab: Lab, repository: str, files: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Push files to the DAGs' folder until the block ends; yield a function that pushes others."""
    with lab.clone(repository) as folder:

        def write(more: dict[str, str]) -> str:
            for name, text in more.items():
                (folder / "dags" / name).write_text(text, "utf-8")
            return push(lab, folder)

        try:
            write(files)
            yield write
        finally:
            for name in files:
                (folder / "dags" / name).unlink()
            push(lab, folder)
    wait_until(
        lambda: require_no_trace(lab, files), what="the end of the test's DAGs", timeout=SECONDS
    )
    await_staging(lab)


def require_no_trace(lab: Lab, files: dict[str, str]) -> None:
    """Raise NotYet while Airflow has a DAG of these files, or an import error."""
    names = {name.removesuffix(".py") for name in files}
    left = {dag_id for found in lab.dags().values() for dag_id in found}
    broken = [one.file for one in lab.broken_files() if one.file in files]
    if names & left or broken:
        raise NotYet(f"Airflow still has {names & left} {broken}")


def staging_commit(lab: Lab) -> str:
    """Return the commit that staging is at."""
    said = lab.git("ls-remote", lab.repository_url("pipelines"), STAGING, cwd=Path.cwd())
    return said.split()[0]


def await_staging(lab: Lab) -> str:
    """Wait until Airflow has staging's newest commit, and return it."""
    commit = staging_commit(lab)
    lab.wait_for_dag(DAG, commit, SECONDS)
    return commit


def render_one_task(dag_id: str, text: str, *, named: bool = True) -> dict[str, str]:
    """Return the file of a DAG whose only task returns the text."""
    given = (f'named("{dag_id}")', "\nfrom steps import named") if named else (f'"{dag_id}"', "")
    return {f"{dag_id}.py": ONE_TASK.format(dag_id=given[0], imports=given[1], text=text)}


# --- What can't be parsed -----------------------------------------------------------------------


@pytest.mark.variation
def test_a_dag_that_can_not_be_parsed_is_named_and_stops_no_other(
    lab: Lab, lab_config: Config
) -> None:
    wrong = {"broken_by_a_test.py": "from airflow.sdk import DAG\n\nimport no_such_module\n"}
    with pushing_files(lab, "pipelines", wrong):
        found = wait_until(lambda: find_broken_file(lab), what="the error", timeout=SECONDS)
        assert (found.bundle, found.file) == ("pipelines", "broken_by_a_test.py")
        shown = print_status(lab_config)
        assert "pipelines: broken_by_a_test.py:3 can't be parsed: ModuleNotFoundError" in shown
        assert DAG in shown
        version = await_staging(lab)
        assert lab.run(DAG).dag_version == version
    assert not lab.broken_files()


def print_status(config: Config) -> str:
    """Return what `lab status` prints."""
    command = [sys.executable, "-m", "lab", "status"]
    env = {"PATH": os.environ["PATH"], "LAB_HOME": str(config.home)}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=True
    ).stdout


def find_broken_file(lab: Lab) -> BrokenFile:
    found = lab.broken_files()
    if not found:
        raise NotYet("Airflow has no import error")
    return found[0]


# --- Versions -----------------------------------------------------------------------------------


def test_a_run_keeps_its_version_though_a_push_lands_in_it(lab: Lab) -> None:
    """Also where the push changes nothing but the body of a task, or a module beside the DAG."""
    dag, key = "pinned_by_a_test", "results/test/pinned"

    def files(text: str) -> dict[str, str]:
        return {
            "pinned_by_a_test.py": TWO_TASKS.format(text=text, key=key),
            "said_by_a_test.py": f'TEXT = "{text}"\n',
        }

    with pushing_files(lab, "pipelines", files("old")) as write, putting_object(lab, key) as put:
        lab.wait_for_dag(dag, staging_commit(lab), SECONDS)
        running = lab.trigger(dag)
        write(files("new"))
        lab.wait_for_dag(dag, staging_commit(lab), SECONDS)
        put()
        lab.follow(running)
        assert lab.xcom(running, "say") == "old and old"
        assert lab.xcom(lab.run(dag), "say") == "new and new"


@contextmanager
def putting_object(lab: Lab, key: str) -> Iterator[Callable[[], object]]:
    """Yield a function that puts an object; delete the object when the block ends."""
    try:
        yield lambda: lab.put_object(key, b"go on")
    finally:
        lab.delete_object(key)


@pytest.mark.variation
def test_the_commit_of_a_run_names_the_version_that_it_began_with(lab: Lab) -> None:
    before = await_staging(lab)
    running = lab.trigger(DAG)
    with pushing_files(lab, "pipelines", render_one_task("other_by_a_test", "hello")):
        assert lab.follow(running).dag_version == before
        made = [v for v in lab.history() if v.trailers.get("Run-Id") == running.id]
        assert [version.trailers["Dag-Version"] for version in made] == [before]
        after = await_staging(lab)
        assert lab.run(DAG).dag_version == after != before


# --- Staging and production ---------------------------------------------------------------------


def test_what_is_promoted_runs_in_production_until_the_next_promotion(lab: Lab) -> None:
    dag = "promoted_by_a_test"
    with (
        promoting(lab) as promote,
        pushing_files(lab, "pipelines", render_one_task(dag, "one")) as write,
    ):
        first = staging_commit(lab)
        lab.wait_for_dag(dag, first, SECONDS)
        assert "production" not in lab.dags()
        promote()
        lab.wait_for_dag(f"production.{dag}", first, SECONDS)
        wait_until(
            lambda: require_production_twins(lab), what="all DAGs in production", timeout=SECONDS
        )

        write(render_one_task(dag, "two"))
        lab.wait_for_dag(dag, staging_commit(lab), SECONDS)
        assert lab.dag_version(f"production.{dag}") == first
        assert run_and_read_result(lab, dag, staging_commit(lab)) == "two"
        assert run_and_read_result(lab, f"production.{dag}", first) == "one"

        promote()
        lab.wait_for_dag(f"production.{dag}", staging_commit(lab), SECONDS)
        assert run_and_read_result(lab, f"production.{dag}", staging_commit(lab)) == "two"
    wait_until(lambda: require_no_production(lab), what="the end of production", timeout=SECONDS)


def run_and_read_result(lab: Lab, dag_id: str, version: str) -> object:
    """Run the DAG at that version and return what its only task returned."""
    run = lab.run(dag_id)
    assert run.dag_version == version
    return lab.xcom(run, "say")


def require_production_twins(lab: Lab) -> None:
    """Raise NotYet until production has all DAGs of staging, under names of its own."""
    known = lab.dags()
    wanted = [f"production.{name}" for name in known["pipelines"]]
    if known.get("production") != sorted(wanted):
        raise NotYet(f"production has {known.get('production')}: {lab.broken_files()}")


def require_no_production(lab: Lab) -> None:
    if "production" in lab.dags():
        raise NotYet("there still are DAGs in production")


@contextmanager
def promoting(lab: Lab) -> Iterator[Callable[[], None]]:
    """Yield a function that promotes staging as a person does; empty production afterwards.

    Staging keeps its files and merges the commit that empties production: it can be promoted again.
    """
    try:
        yield lambda: promote(lab)
    finally:
        with lab.clone("pipelines") as folder:
            lab.git("checkout", "--quiet", "-B", PRODUCTION, f"origin/{PRODUCTION}", cwd=folder)
            for path in (folder / "dags").rglob("*.py"):
                path.unlink()
            removal = push(lab, folder, PRODUCTION)
            lab.git("checkout", "--quiet", STAGING, cwd=folder)
            lab.git("merge", "--quiet", "--strategy=ours", "--no-edit", removal, cwd=folder)
            push(lab, folder, STAGING)


def promote(lab: Lab) -> None:
    with lab.clone("pipelines") as folder:
        refs = f"{STAGING}:{PRODUCTION}"
        lab.git("push", "--quiet", "origin", refs, cwd=folder)


# --- Other repositories -------------------------------------------------------------------------


def test_another_team_delivers_from_a_repository_of_its_own(lab: Lab) -> None:
    dag = "team_a_by_a_test"
    with pushing_files(lab, "team-a", render_one_task(dag, "we are team A", named=False)):
        with lab.clone("team-a") as folder:
            commit = lab.git("rev-parse", "HEAD", cwd=folder).strip()
        lab.wait_for_dag(dag, commit, SECONDS)
        assert lab.dags()["team-a"] == [dag]
        assert run_and_read_result(lab, dag, commit) == "we are team A"


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_no_repository_shows_itself_to_strangers(lab: Lab, repository: str) -> None:
    for service in ("git-upload-pack", "git-receive-pack"):
        place = f"{lab.repository_url(repository)}/info/refs?service={service}"
        assert requests.get(place, timeout=30).status_code == 401
        for wrong in ((lab.git_user, "wrong"), ("airflow", lab.git_password), ("nobody", "")):
            assert requests.get(place, auth=wrong, timeout=30).status_code == 401
        known = requests.get(place, auth=(lab.git_user, lab.git_password), timeout=30)
        assert known.status_code == 200
