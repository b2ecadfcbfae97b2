"""The datasets repository, read as anybody would read it: with git, without the steps' code."""

from __future__ import annotations

import os
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lab.client import versions
from lab.errors import CommitError, LabError, ProofError
from lab.lab import Lab
from lab.model import Access, Version

MD5 = "54e1eb987b2a9ffe06e8a530ca469b18"
POINTER = """outs:
- md5: {md5}
  size: {size}
  hash: md5
  path: {name}
"""
CONFIG = """[core]
    remote = storage
    analytics = false
['remote "other"']
    url = s3://elsewhere
['remote "storage"']
    url = {url}
"""


class Repository:
    """A git repository with a commit per version of one dataset."""

    def __init__(self, folder: Path, dataset: str) -> None:
        self.folder = folder
        self.pointer = f"{dataset}.dvc"
        self.lab = build_lab(folder, dataset)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        command = ["git", *who, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, message: str, files: dict[str, str]) -> str:
        """Commit the files and return the new commit's hash."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def commit_version(self, number: int, trailers: str = "") -> str:
        name = Path(self.pointer).stem
        text = POINTER.format(md5=f"{number:032x}", size=number, name=name)
        return self.commit(f"version {number}\n\n{trailers}", {self.pointer: text})


def build_lab(folder: Path, dataset: str) -> Lab:
    given: dict[str, Any] = dict.fromkeys((one.name for one in fields(Access)), "")
    given |= {"git_url": str(folder), "git_user": "lab", "dataset_path": dataset}
    return Lab(**given)


@pytest.fixture(params=["datasets/a.csv", "datasets/größe in Zoll.csv"])
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    (tmp_path / "datasets").mkdir()
    return Repository(tmp_path / "datasets", request.param)


# --- One pointer --------------------------------------------------------------------------------


def test_a_version_is_what_its_pointer_and_its_trailers_say() -> None:
    trailers = "Run-Id: manual: 1\x1eData-Md5: abc\x1e"
    version = versions.version_from_pointer(
        "c0ffee", POINTER.format(md5=MD5, size=7, name="a"), trailers
    )
    said = {"Run-Id": "manual: 1", "Data-Md5": "abc"}
    assert version == Version("c0ffee", MD5, 7, said)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "outs: []",
        "outs:\n- path: a\n",
        "outs:\n- {md5: a, size: x}",
        "outs:\n- {md5: a, size: 1}\n- {md5: b, size: 1}",
        "- a",
        "[",
        "<<<<<<< HEAD",
        "outs: 3",
    ],
)
def test_a_pointer_that_is_none_is_no_proof(text: str) -> None:
    with pytest.raises(ProofError, match="the pointer at c0ffee is not one"):
        versions.version_from_pointer("c0ffee", text, "")


def test_an_object_is_where_dvc_keeps_it() -> None:
    version = Version("c0ffee", MD5, 7, {})
    assert versions.object_key("", version.md5) == f"files/md5/{MD5[:2]}/{MD5[2:]}"
    assert versions.object_key("a/b", version.md5) == f"a/b/files/md5/{MD5[:2]}/{MD5[2:]}"


# --- A history ----------------------------------------------------------------------------------


def test_a_history_has_each_version_the_newest_first(repository: Repository) -> None:
    first = repository.commit_version(1)
    second = repository.commit_version(2, "Run-Id: r2\nData-Size: 2")
    repository.commit("something else", {"README": "hello"})
    third = repository.commit_version(3)
    found = versions.read_history(repository.lab, "main")
    assert [(v.commit, v.size) for v in found] == [(third, 3), (second, 2), (first, 1)]
    assert [dict(v.trailers) for v in found] == [{}, {"Run-Id": "r2", "Data-Size": "2"}, {}]
    assert versions.read_history(repository.lab, second[:10])[0].commit == second


def test_a_history_without_the_dataset_is_refused(repository: Repository) -> None:
    repository.commit("something else", {"README": "hello"})
    with pytest.raises(CommitError, match=r"has no datasets/.*\.csv\.dvc"):
        versions.read_history(repository.lab, "main")


@pytest.mark.parametrize("name", ["0123456", "no-such-branch", "--all", "-1", "HEAD:README", ""])
def test_a_commit_that_there_is_not_is_refused(name: str, repository: Repository) -> None:
    repository.commit_version(1)
    with pytest.raises(CommitError):
        versions.read_history(repository.lab, name)


def test_files_are_read_whole_whatever_letters_they_have(repository: Repository) -> None:
    files = {"empty": "", "one": "größer\n\n", "two": "王小明", "three": "no newline\nat the end"}
    commit = repository.commit("files", files)
    names = [f"{commit}:{name}" for name in files]
    found = versions.read_blobs(repository.lab, repository.folder, names)
    assert found == list(files.values())


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_what_is_no_file_of_a_commit_is_no_proof(name: str, repository: Repository) -> None:
    commit = repository.commit("files", {"folder/file": "hello", "file": "hello"})
    names = [f"{commit}:file", f"{commit}:{name}"]
    with pytest.raises(ProofError, match=f"{commit}:{name} is not a file of that commit"):
        versions.read_blobs(repository.lab, repository.folder, names)


def test_a_clone_is_gone_afterwards(repository: Repository) -> None:
    repository.commit_version(1)
    with versions.temporary_clone(repository.lab) as folder:
        assert (folder / repository.pointer).exists()
    assert not folder.parent.exists()


# --- The remote ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket/a/b/", ("bucket", "a/b")),
        ("s3://bucket/100%/%(x)s", ("bucket", "100%/%(x)s")),
    ],
)
def test_the_remote_is_that_of_the_commit(
    url: str, place: tuple[str, str], repository: Repository
) -> None:
    commit = repository.commit("dvc", {".dvc/config": CONFIG.format(url=url)})
    repository.commit("moved", {".dvc/config": CONFIG.format(url="s3://moved")})
    assert versions.read_remote(repository.lab, repository.folder, commit) == place


@pytest.mark.parametrize(
    "text", ["", "[core]\n    analytics = false\n", "[core]\n    remote = x\n", "nonsense\n"]
)
def test_a_commit_that_names_no_remote_is_no_proof(text: str, repository: Repository) -> None:
    commit = repository.commit("dvc", {".dvc/config": text})
    with pytest.raises(ProofError, match=f".dvc/config at {commit}"):
        versions.read_remote(repository.lab, repository.folder, commit)


def test_a_commit_without_dvc_is_refused(repository: Repository) -> None:
    commit = repository.commit("no dvc", {"README": "hello"})
    with pytest.raises(LabError):
        versions.read_remote(repository.lab, repository.folder, commit)
