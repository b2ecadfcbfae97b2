"""Publishing DAGs: what the repositories hold, whoever pushed before and whoever is killed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.backends.embedded.gitserver import repositories
from lab.backends.embedded.services import gitserver
from lab.client import git as owner_git
from lab.delivery import bundle, publish
from lab.delivery.publish import PRODUCTION, STAGING
from lab.errors import LabError
from tests.support.stores import Stores


class Killed(BaseException):
    """A stand-in for SIGKILL: nothing may catch it."""


@dataclass(frozen=True)
class Published:
    """A repository of pipelines on the git server, and the checkout that is published to it."""

    stores: Stores
    name: str
    source: Path

    @property
    def url(self) -> str:
        return gitserver.repository_url(self.stores.site.ports, self.name)

    def publish(self) -> str | None:
        return publish.publish_dags(self.stores.lab, self.url, self.write)

    def write(self, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        bundle.copy_folder(self.source, target)

    def git(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        bare = self.stores.folder(self.name)
        return owner_git.run_git(self.stores.lab, *arguments, cwd=cwd or bare).strip()

    def read_branches(self) -> dict[str, str]:
        shown = self.git("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads")
        return dict(line.split() for line in shown.splitlines())

    def list_files(self, branch: str) -> list[str]:
        return self.git("ls-tree", "-r", "--name-only", branch).splitlines()

    def push_as_somebody(
        self, folder: Path, branch: str, *, email: str = "a@b", base: str = ""
    ) -> str:
        """Push a commit to the branch as somebody else, and return it."""
        clone = folder / f"clone-{next(self.stores.serial)}"
        self.git("clone", "--quiet", self.url, clone, cwd=folder)
        if base:
            self.git("checkout", "--quiet", "-B", branch, base, cwd=clone)
        (clone / "theirs.txt").write_text(f"{clone.name}\n")
        self.git("add", "--all", cwd=clone)
        by = ("-c", f"user.email={email}")
        self.git(*by, "commit", "--quiet", "--message", "theirs", cwd=clone)
        self.git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", cwd=clone)
        return self.git("rev-parse", "HEAD", cwd=clone)

    def promote(self, folder: Path) -> None:
        """Push one branch to the other, as a person does."""
        clone = folder / f"clone-{next(self.stores.serial)}"
        self.git("clone", "--quiet", self.url, clone, cwd=folder)
        self.git(
            "push", "--quiet", "origin", f"origin/{STAGING}:refs/heads/{PRODUCTION}", cwd=clone
        )


@pytest.fixture
def pipelines(stores: Stores, tmp_path: Path) -> Published:
    """Return an empty repository, and a checkout of one DAG."""
    name = f"lab/published-{next(stores.serial)}"
    stores.grant(name)
    repositories.create_repository(stores.config.data / gitserver.NAME, name)
    source = tmp_path / "dags"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__" / "one.pyc").write_bytes(b"")
    (source / "one.py").write_text("# one\n")
    (source / ".airflowignore").write_text("# none\n")
    return Published(stores, name, source)


def test_a_new_repository_has_the_dags_in_staging_and_none_in_production(
    pipelines: Published,
) -> None:
    commit = pipelines.publish()
    branches = pipelines.read_branches()
    assert branches.keys() == {STAGING, PRODUCTION}
    assert branches[STAGING] == commit
    assert pipelines.list_files(STAGING) == ["README.md", "dags/.airflowignore", "dags/one.py"]
    assert pipelines.list_files(PRODUCTION) == ["README.md", "dags/.airflowignore"]
    assert pipelines.git("merge-base", STAGING, PRODUCTION) == branches[PRODUCTION]


def test_publishing_again_changes_nothing(pipelines: Published) -> None:
    commit = pipelines.publish()
    before = pipelines.read_branches()
    assert pipelines.publish() == commit
    assert pipelines.read_branches() == before


def test_a_changed_checkout_goes_to_staging_only(pipelines: Published) -> None:
    first = pipelines.publish()
    before = pipelines.read_branches()[PRODUCTION]
    (pipelines.source / "one.py").unlink()
    (pipelines.source / "two.py").write_text("# two\n")
    second = pipelines.publish()
    assert pipelines.read_branches() == {STAGING: second, PRODUCTION: before}
    assert pipelines.list_files(STAGING) == ["README.md", "dags/.airflowignore", "dags/two.py"]
    assert pipelines.git("rev-parse", f"{second}^") == first


def test_promoting_is_a_plain_push_and_stays(pipelines: Published, tmp_path: Path) -> None:
    promoted = pipelines.publish()
    pipelines.promote(tmp_path)
    (pipelines.source / "two.py").write_text("# two\n")
    newer = pipelines.publish()
    assert pipelines.read_branches() == {STAGING: newer, PRODUCTION: promoted}
    assert pipelines.list_files(PRODUCTION) == ["README.md", "dags/.airflowignore", "dags/one.py"]


@pytest.mark.parametrize("emails", [("lab@localhost",), ("a@b", "lab@localhost")])
def test_a_repository_of_an_earlier_version_gets_a_production_that_can_follow(
    pipelines: Published, tmp_path: Path, emails: tuple[str, ...]
) -> None:
    """Its history lacks the common first commit, and none of its DAGs may be in production."""
    for email in emails:
        old = pipelines.push_as_somebody(tmp_path, STAGING, email=email)
    commit = pipelines.publish()
    assert commit != old
    assert pipelines.list_files(PRODUCTION) == ["README.md", "dags/.airflowignore"]
    assert pipelines.list_files(STAGING) == ["dags/.airflowignore", "dags/one.py", "theirs.txt"]
    assert pipelines.git("merge-base", STAGING, old) == old
    pipelines.promote(tmp_path)
    assert pipelines.read_branches()[PRODUCTION] == commit
    assert pipelines.publish() == commit


def test_a_staging_branch_of_somebody_else_is_left_alone(
    pipelines: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = pipelines.push_as_somebody(tmp_path, STAGING)
    assert pipelines.publish() is None
    assert "has commits of its own" in capsys.readouterr().out
    assert pipelines.read_branches()[STAGING] == theirs
    assert pipelines.list_files(PRODUCTION) == ["README.md", "dags/.airflowignore"]


def test_a_production_branch_of_somebody_else_is_left_alone(
    pipelines: Published, tmp_path: Path
) -> None:
    pipelines.publish()
    theirs = pipelines.push_as_somebody(tmp_path, PRODUCTION, base=f"origin/{PRODUCTION}")
    (pipelines.source / "two.py").write_text("# two\n")
    newer = pipelines.publish()
    assert pipelines.read_branches() == {STAGING: newer, PRODUCTION: theirs}


def test_every_repository_begins_with_the_same_commit(
    stores: Stores, pipelines: Published, tmp_path: Path
) -> None:
    pipelines.publish()
    name = f"lab/published-{next(stores.serial)}"
    stores.grant(name)
    repositories.create_repository(stores.config.data / gitserver.NAME, name)
    other = Published(stores, name, pipelines.source)
    other.publish()
    assert other.read_branches()[PRODUCTION] == pipelines.read_branches()[PRODUCTION]


def test_a_repository_that_is_begun_can_be_followed(pipelines: Published, tmp_path: Path) -> None:
    publish.ensure_first_commit(pipelines.stores.lab, pipelines.url)
    before = pipelines.read_branches()
    assert before.keys() == {STAGING}
    assert pipelines.list_files(STAGING) == ["README.md", "dags/.airflowignore"]
    publish.ensure_first_commit(pipelines.stores.lab, pipelines.url)
    assert pipelines.read_branches() == before


def test_a_repository_that_somebody_began_is_left_alone(
    pipelines: Published, tmp_path: Path
) -> None:
    theirs = pipelines.push_as_somebody(tmp_path, STAGING)
    publish.ensure_first_commit(pipelines.stores.lab, pipelines.url)
    assert pipelines.read_branches() == {STAGING: theirs}


@pytest.mark.parametrize("earlier", [False, True])
def test_calls_that_are_killed_complete_each_other(
    pipelines: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    """Each call gets one git command further than the one before; the last one is not killed."""
    old = pipelines.push_as_somebody(tmp_path, STAGING, email="lab@localhost") if earlier else None
    real, left = owner_git.run_git, 0

    def run_limited_git(*arguments: object, **options: object) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(publish, "run_git", run_limited_git)
    for allowed in range(1, 100):
        left = allowed
        try:
            commit = pipelines.publish()
            break
        except Killed:
            pass
    assert allowed > 10
    branches = pipelines.read_branches()
    assert branches[STAGING] == commit
    assert pipelines.list_files(PRODUCTION) == ["README.md", "dags/.airflowignore"]
    expected = {STAGING: commit, PRODUCTION: branches[PRODUCTION]}
    assert branches == expected
    count = len(pipelines.git("rev-list", STAGING).splitlines())
    assert count == (4 if old else 2)
    pipelines.promote(tmp_path)


def test_what_was_pushed_meanwhile_is_not_overwritten(
    pipelines: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines.publish()
    (pipelines.source / "two.py").write_text("# two\n")
    real = bundle.copy_folder

    def copy_slowly(source: Path, target: Path) -> None:
        real(source, target)
        pipelines.push_as_somebody(tmp_path, STAGING)

    monkeypatch.setattr(bundle, "copy_folder", copy_slowly)
    with pytest.raises(LabError, match=r"rejected|fetch first"):
        pipelines.publish()
    assert "theirs.txt" in pipelines.list_files(STAGING)


def test_the_files_that_declare_dags_are_found_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "one.py").write_text("with DAG('one'):\n    pass\n")
    (tmp_path / "team" / "two.py").write_text("@dag\ndef two() -> None: ...\n")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\nwith DAG('latin'): pass\n")
    (tmp_path / "assets.py").write_text("from airflow.sdk import Asset\n")
    assert bundle.list_dag_files(tmp_path) == ["latin.py", "one.py", "team/two.py"]
