"""How DAGs reach Airflow: two branches of one repository, another team's, and what goes wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from lab.__main__ import show_pipelines
from lab.client import runs, s3
from lab.client.git import git
from lab.lab import Lab
from lab.model import Broken
from lab.wait import NotYet, until

DAG = "dataset_pipeline"
STAGING, PRODUCTION = "main", "release"
SECONDS = 90  # for what takes five where nobody else works
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
# Its first task ends when the bucket has an object; the second says what the files of its run say.
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


def url(lab: Lab, repository: str) -> str:
    return lab.git_url.replace("datasets.git", f"{repository}.git")


@contextmanager
def clone(lab: Lab, repository: str) -> Iterator[Path]:
    """The repository's main branch, checked out."""
    with tempfile.TemporaryDirectory() as folder:
        git(lab, "clone", "--quiet", url(lab, repository), "clone", cwd=Path(folder))
        yield Path(folder) / "clone"


def push(lab: Lab, folder: Path, *branches: str) -> str:
    """The commit of what is in the folder, to which the branches have moved."""
    git(lab, "add", "--all", cwd=folder)
    if git(lab, "status", "--porcelain", cwd=folder):
        git(lab, "commit", "--quiet", "--message", "by a test", cwd=folder)
    refs = [f"HEAD:refs/heads/{name}" for name in branches or (STAGING,)]
    git(lab, "push", "--quiet", "origin", *refs, cwd=folder)
    return git(lab, "rev-parse", "HEAD", cwd=folder).strip()


@contextmanager
def pushed(lab: Lab, repository: str, files: dict[str, str]) -> Iterator[Callable[..., str]]:
    """The DAGs' folder has these files, too, until the block ends; pushes others at a call."""
    with clone(lab, repository) as folder:

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
    until(lambda: gone(lab, files), what="the end of the test's DAGs", timeout=SECONDS)
    settled(lab)


def gone(lab: Lab, files: dict[str, str]) -> None:
    """Raises NotYet while Airflow has a DAG of these files, or an error."""
    names = {name.removesuffix(".py") for name in files}
    left = {dag_id for found in runs.known_dags(lab).values() for dag_id in found}
    broken = [one.file for one in runs.broken_files(lab) if one.file in files]
    if names & left or broken:
        raise NotYet(f"Airflow still has {names & left} {broken}")


def head(lab: Lab) -> str:
    """The commit that staging is at."""
    said = git(lab, "ls-remote", url(lab, "pipelines"), STAGING, cwd=Path.cwd())
    return said.split()[0]


def settled(lab: Lab) -> str:
    """The commit that staging is at, in Airflow too."""
    commit = head(lab)
    runs.await_dag(lab, DAG, commit, SECONDS)
    return commit


def one_task(dag_id: str, text: str, *, named: bool = True) -> dict[str, str]:
    """The file of a DAG whose task returns the text."""
    given = (f'named("{dag_id}")', "\nfrom steps import named") if named else (f'"{dag_id}"', "")
    return {f"{dag_id}.py": ONE_TASK.format(dag_id=given[0], imports=given[1], text=text)}


# --- What can't be parsed -----------------------------------------------------------------------


@pytest.mark.variation
def test_a_dag_that_can_not_be_parsed_is_named_and_stops_no_other(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"broken_by_a_test.py": "from airflow.sdk import DAG\n\nimport no_such_module\n"}
    with pushed(lab, "pipelines", wrong):
        found = until(lambda: broken(lab), what="the error", timeout=SECONDS)
        assert (found.bundle, found.file) == ("pipelines", "broken_by_a_test.py")
        capsys.readouterr()
        show_pipelines(lab)
        shown = capsys.readouterr().out
        assert "pipelines: broken_by_a_test.py:3 can't be parsed: ModuleNotFoundError" in shown
        assert DAG in shown
        version = settled(lab)
        assert lab.run(DAG).dag_version == version
    assert not runs.broken_files(lab)


def broken(lab: Lab) -> Broken:
    found = runs.broken_files(lab)
    if not found:
        raise NotYet("Airflow has no import error")
    return found[0]


# --- Versions -----------------------------------------------------------------------------------


def test_a_run_keeps_its_version_though_a_push_lands_in_it(lab: Lab) -> None:
    """Also where the push changes nothing but the body of a task, or a module beside the DAG."""
    dag, key = "pinned_by_a_test", "test/pinned"

    def files(text: str) -> dict[str, str]:
        return {
            "pinned_by_a_test.py": TWO_TASKS.format(text=text, key=key),
            "said_by_a_test.py": f'TEXT = "{text}"\n',
        }

    with pushed(lab, "pipelines", files("old")) as write, object_at_the_end(lab, key) as put:
        runs.await_dag(lab, dag, head(lab), SECONDS)
        running = lab.trigger(dag)
        write(files("new"))
        runs.await_dag(lab, dag, head(lab), SECONDS)
        put()
        lab.follow(running)
        assert lab.xcom(running, "say") == "old and old"
        assert lab.xcom(lab.run(dag), "say") == "new and new"


@contextmanager
def object_at_the_end(lab: Lab, key: str) -> Iterator[Callable[[], object]]:
    """The bucket has an object from the call on, until the block ends."""
    client, place = s3.client(lab), {"Bucket": lab.s3_bucket, "Key": key}
    try:
        yield lambda: client.put_object(**place, Body=b"go on")
    finally:
        client.delete_object(**place)


@pytest.mark.variation
def test_the_commit_of_a_run_names_the_version_that_it_began_with(lab: Lab) -> None:
    before = settled(lab)
    running = lab.trigger(DAG)
    with pushed(lab, "pipelines", one_task("other_by_a_test", "hello")):
        assert lab.follow(running).dag_version == before
        made = [v for v in lab.history() if v.trailers.get("Run-Id") == running.id]
        assert [version.trailers["Dag-Version"] for version in made] == [before]
        after = settled(lab)
        assert lab.run(DAG).dag_version == after != before


# --- Staging and production ---------------------------------------------------------------------


def test_what_is_promoted_runs_in_production_until_the_next_promotion(lab: Lab) -> None:
    dag = "promoted_by_a_test"
    with promoting(lab) as promote, pushed(lab, "pipelines", one_task(dag, "one")) as write:
        first = head(lab)
        runs.await_dag(lab, dag, first, SECONDS)
        assert "production" not in runs.known_dags(lab)
        promote()
        runs.await_dag(lab, f"production.{dag}", first, SECONDS)
        until(lambda: twins(lab), what="all DAGs in production", timeout=SECONDS)

        write(one_task(dag, "two"))
        runs.await_dag(lab, dag, head(lab), SECONDS)
        assert runs.dag_version(lab, f"production.{dag}") == first
        assert said(lab, dag, head(lab)) == "two"
        assert said(lab, f"production.{dag}", first) == "one"

        promote()
        runs.await_dag(lab, f"production.{dag}", head(lab), SECONDS)
        assert said(lab, f"production.{dag}", head(lab)) == "two"
    until(lambda: no_production(lab), what="the end of production", timeout=SECONDS)


def said(lab: Lab, dag_id: str, version: str) -> object:
    """What the only task of a run of that version has returned."""
    run = lab.run(dag_id)
    assert run.dag_version == version
    return lab.xcom(run, "say")


def twins(lab: Lab) -> None:
    """Raises NotYet until production has the DAGs of staging, each under a name of its own."""
    known = runs.known_dags(lab)
    wanted = [f"production.{name}" for name in known["pipelines"]]
    if known.get("production") != sorted(wanted):
        raise NotYet(f"production has {known.get('production')}: {runs.broken_files(lab)}")


def no_production(lab: Lab) -> None:
    if "production" in runs.known_dags(lab):
        raise NotYet("there still are DAGs in production")


@contextmanager
def promoting(lab: Lab) -> Iterator[Callable[[], None]]:
    """A call promotes staging as a person does. Afterwards production is as empty as before, and
    staging, with the files that it has, holds that commit: it can be promoted again."""
    try:
        yield lambda: promote(lab)
    finally:
        with clone(lab, "pipelines") as folder:
            git(lab, "checkout", "--quiet", "-B", PRODUCTION, f"origin/{PRODUCTION}", cwd=folder)
            for path in (folder / "dags").rglob("*.py"):
                path.unlink()
            removal = push(lab, folder, PRODUCTION)
            git(lab, "checkout", "--quiet", STAGING, cwd=folder)
            git(lab, "merge", "--quiet", "--strategy=ours", "--no-edit", removal, cwd=folder)
            push(lab, folder, STAGING)


def promote(lab: Lab) -> None:
    with clone(lab, "pipelines") as folder:
        refs = f"{STAGING}:{PRODUCTION}"
        git(lab, "push", "--quiet", "origin", refs, cwd=folder)


# --- Other repositories -------------------------------------------------------------------------


def test_another_team_delivers_from_a_repository_of_its_own(lab: Lab) -> None:
    dag = "team_a_by_a_test"
    with pushed(lab, "team-a", one_task(dag, "we are team A", named=False)):
        with clone(lab, "team-a") as folder:
            commit = git(lab, "rev-parse", "HEAD", cwd=folder).strip()
        runs.await_dag(lab, dag, commit, SECONDS)
        assert runs.known_dags(lab)["team-a"] == [dag]
        assert said(lab, dag, commit) == "we are team A"


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_no_repository_shows_itself_to_strangers(lab: Lab, repository: str) -> None:
    for service in ("git-upload-pack", "git-receive-pack"):
        place = f"{url(lab, repository)}/info/refs?service={service}"
        assert requests.get(place, timeout=30).status_code == 401
        for wrong in ((lab.git_user, "wrong"), ("airflow", lab.git_password), ("nobody", "")):
            assert requests.get(place, auth=wrong, timeout=30).status_code == 401
        known = requests.get(place, auth=(lab.git_user, lab.git_password), timeout=30)
        assert known.status_code == 200
