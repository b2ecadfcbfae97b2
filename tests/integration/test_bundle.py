"""The DAG bundle, by Airflow's own classes, from the lab's own git server by HTTP and SSH."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import layout
from lab.backends.embedded.gitserver import repositories
from lab.backends.embedded.services import gitserver
from lab.client import git as owner_git
from lab.config import KIT, PLUGINS
from lab.delivery import publish, ssh
from tests.support.stores import Stores

Change = Callable[..., str]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield the plugin's module, as Airflow's processes import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.syspath_prepend(str(KIT / PLUGINS))
        yield importlib.import_module("lab_bundle")


@pytest.fixture(params=["http", "ssh"])
def repository(request: pytest.FixtureRequest, stores: Stores) -> str:
    """Return a repository that Airflow reads by HTTP, or the one that it reads by SSH."""
    if request.param == "ssh":
        if not ssh.has_ssh_client():
            pytest.skip("there is no ssh here")
        return layout.TEAM_A
    name = f"lab/bundle-{next(stores.serial)}"
    repositories.create_repository(stores.config.data / gitserver.NAME, name)
    return name


@pytest.fixture
def change(stores: Stores, repository: str, tmp_path: Path) -> Change:
    """Return a function that pushes files (None deletes one) to a branch and returns the commit."""
    stores.grant(repository)
    url = gitserver.repository_url(stores.site.ports, repository)
    publish.ensure_first_commit(stores.lab, url)
    clone = tmp_path / "clone"
    owner_git.run_git(stores.lab, "clone", "--quiet", url, clone, cwd=tmp_path)

    def push(branch: str = "main", /, **files: str | None) -> str:
        def git(*words: str) -> str:
            return owner_git.run_git(stores.lab, *words, cwd=clone).strip()

        for name, text in files.items():
            path = clone / "dags" / f"{name}.py"
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--allow-empty", "--message", "change")
        git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        return git("rev-parse", "HEAD")

    push(one="# one\n", two="# two\n", three=None)
    return push


@pytest.fixture
def bundle(
    stores: Stores,
    repository: str,
    change: Change,
    bundles: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Return a function that makes a bundle of the repository, as each process of Airflow does."""
    site = stores.site
    if repository != layout.TEAM_A:  # the owner's connection, to another address
        known = gitserver.airflow_connection(
            site.config, site.secrets, site.ports, layout.PIPELINES
        )
        known["host"] = gitserver.repository_url(site.ports, repository)
        known["login"] = layout.OWNER
        known["password"] = gitserver.password(site.secrets, layout.OWNER)
    else:
        known = gitserver.airflow_connection(site.config, site.secrets, site.ports, repository)
    monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps(known))
    storage = tmp_path / "größe und platz"
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(storage))
    for name, value in {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}.items():
        monkeypatch.setenv(name, value)

    def make_bundle(branch: str = "main", version: str | None = None) -> Any:
        named = {"name": f"of-{branch}", "subdir": "dags", "git_conn_id": "tested"}
        found = bundles.BranchBundle(**named, tracking_ref=branch, version=version)
        found.initialize()
        return found

    return make_bundle


def list_changed_files(bundle: Any, moment: float) -> list[str]:
    """List the files that Airflow takes for changed since then, the first to be parsed first."""
    files = {path: path.stat().st_mtime for path in bundle.path.rglob("*.py")}
    newest_first = sorted(files, key=lambda path: -files[path])
    return [path.stem for path in newest_first if files[path] > moment]


def test_it_has_the_files_of_its_branch(
    bundle: Callable[..., Any], change: Change, stores: Stores
) -> None:
    name = f"other-{next(stores.serial)}"
    other = change(name, three="# three\n")
    assert sorted(path.stem for path in bundle().path.rglob("*.py")) == ["one", "two"]
    found = bundle(name)
    assert found.get_current_version().version == other
    assert sorted(path.stem for path in found.path.rglob("*.py")) == ["one", "three", "two"]


def test_a_push_has_all_files_parsed_again_what_it_changed_first(
    bundle: Callable[..., Any], change: Change
) -> None:
    found = bundle()
    found.refresh()
    finished = time.time()  # when the last parsing ended
    commit = change(two="# changed\n", three="# new\n")
    found.refresh()
    assert found.get_current_version().version == commit
    assert (found.path / "two.py").read_text() == "# changed\n"
    assert list_changed_files(found, finished) in (["two", "three", "one"], ["three", "two", "one"])
    # Files that were being parsed at that moment are parsed again.
    assert sorted(list_changed_files(found, time.time())) == ["one", "three", "two"]


def test_a_file_that_goes_and_one_that_is_renamed(
    bundle: Callable[..., Any], change: Change
) -> None:
    found = bundle()
    before = time.time()
    change(one=None, two=None, moved="# two\n")
    found.refresh()
    assert list_changed_files(found, before) == ["moved"]


def test_without_a_push_nothing_is_fetched_and_no_file_is_touched(
    bundle: Callable[..., Any], change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bundle()
    before = {path: path.stat().st_mtime_ns for path in found.path.rglob("*.py")}
    fetched: list[object] = []
    monkeypatch.setattr(type(found), "_fetch_bare_repo", fetched.append)
    for _ in range(3):
        found.refresh()
    assert not fetched
    assert {path: path.stat().st_mtime_ns for path in found.path.rglob("*.py")} == before


def test_a_push_to_another_branch_is_none_to_this_one(
    bundle: Callable[..., Any], change: Change, stores: Stores
) -> None:
    found = bundle()
    version, before = found.get_current_version(), time.time()
    change(f"other-{next(stores.serial)}", one="# other\n")
    found.refresh()
    assert found.get_current_version() == version
    assert list_changed_files(found, before) == []


def test_a_run_s_files_stay_those_of_its_commit(bundle: Callable[..., Any], change: Change) -> None:
    tracking = bundle()
    version = tracking.get_current_version().version
    change(one="# newer\n")
    tracking.refresh()
    assert (bundle(version=version).path / "one.py").read_text() == "# one\n"
    assert (tracking.path / "one.py").read_text() == "# newer\n"


def test_a_new_process_follows_what_an_earlier_one_has_cloned(
    bundle: Callable[..., Any], change: Change
) -> None:
    bundle()
    commit = change(one="# newer\n")
    assert bundle().get_current_version().version == commit


def test_a_server_that_is_away_is_an_error_and_nothing_is_lost(
    bundle: Callable[..., Any], change: Change, stores: Stores
) -> None:
    found = bundle()
    version = found.get_current_version()
    stores.kill(gitserver.NAME)
    with pytest.raises(Exception, match=r"exit code|code\(128\)"):
        found.refresh()
    assert found.get_current_version() == version
    stores.start()
    commit = change(one="# newer\n")
    found.refresh()
    assert found.get_current_version().version == commit


def test_no_secret_is_left_where_the_files_are(bundle: Callable[..., Any], stores: Stores) -> None:
    found = bundle()
    found.refresh()
    secrets = [value.encode() for value in stores.site.secrets.values.values()]
    files = [path for path in found.base_dir.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [p for p in files if any(secret in p.read_bytes() for secret in secrets)]
