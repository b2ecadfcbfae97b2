"""The datasets repository, read as anybody would read it: with git, without the steps' code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.client import versions
from lab.client.history import Pointer
from lab.errors import CommitError, LabError, ProofError
from lab.lab import Lab
from lab.model import Version
from tests.support.histories import POINTER, Repository, md5_of

MD5 = "54e1eb987b2a9ffe06e8a530ca469b18"
CONFIG = """[core]
    remote = storage
    analytics = false
['remote "other"']
    url = s3://elsewhere
['remote "storage"']
    url = {url}
"""


@pytest.fixture(params=["datasets/a.csv", "datasets/größe in Zoll.csv"])
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    return Repository(tmp_path / "datasets", request.param)


# --- One pointer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "md5", "size"),
    [
        (POINTER.format(md5=MD5, size=7, name="a"), MD5, 7),
        (f"outs:\n- md5: {MD5}\n  size: 7\n  path: a.csv\n", MD5, 7),  # DVC 2
        (f"md5: {MD5}\nouts:\n- md5: {MD5}\n  path: a.csv\n", MD5, None),  # DVC 1
        (f"outs:\n- md5: {MD5}.dir\n  size: 7\n  nfiles: 2\n  path: a\n", f"{MD5}.dir", 7),
    ],
)
def test_a_version_is_what_its_pointer_says(text: str, md5: str, size: int | None) -> None:
    assert versions.parse_pointer("b10b", text) == Pointer("b10b", text, md5, size)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "outs: []",
        "outs:\n- path: a\n",
        "outs:\n- {md5: a, size: x}",
        "outs:\n- {md5: a, size: 1}\n- {md5: b, size: 1}",
        "outs:\n- a",
        "- a",
        "[",
        "<<<<<<< HEAD",
        "outs: 3",
    ],
)
def test_a_text_that_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        versions.parse_pointer("b10b", text)


@pytest.mark.parametrize("read", [versions.read_history, versions.read_version])
def test_a_pointer_that_is_none_is_no_proof(
    read: Callable[[Lab, str], object], repository: Repository
) -> None:
    repository.commit_version(1)
    repository.commit("a conflict", {repository.pointer: "<<<<<<< HEAD\nouts:\n- md5: a\n"})
    commit = repository.commit("something else", {"README": "hello"})
    with pytest.raises(ProofError, match=f"the pointer at {commit} is not one: mapping values"):
        read(repository.lab, "main")


def test_an_object_of_the_labs_own_remote_is_where_dvc_3_keeps_it() -> None:
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


@pytest.mark.parametrize("read", [versions.read_history, versions.read_version])
def test_a_history_without_the_dataset_is_refused(
    read: Callable[[Lab, str], object], repository: Repository
) -> None:
    repository.commit("something else", {"README": "hello"})
    why = r"^main has no datasets/.*\.csv\.dvc: this commit has no dataset$"
    with pytest.raises(CommitError, match=why):
        read(repository.lab, "main")


def test_a_trailer_is_what_stands_behind_its_first_colon(repository: Repository) -> None:
    repository.commit_version(1, "Run-Id: manual: 1\nData-Md5: abc")
    version = versions.read_version(repository.lab, "main")
    assert version.trailers == {"Run-Id": "manual: 1", "Data-Md5": "abc"}
    assert (version.md5, version.size) == (md5_of(1), 1)


@pytest.mark.parametrize("name", ["0123456", "no-such-branch", "--all", "-1", "HEAD:README", ""])
def test_a_commit_that_there_is_not_is_refused(name: str, repository: Repository) -> None:
    repository.commit_version(1)
    with pytest.raises(CommitError):
        versions.read_history(repository.lab, name)


@pytest.mark.parametrize(
    "name", ["feature/x", "origin/feature/x", "refs/heads/feature/x", "v1", "feature/x~0"]
)
def test_a_commit_is_found_by_a_branch_or_a_tag_of_the_server(
    name: str, repository: Repository
) -> None:
    repository.commit_version(1)
    repository.git("checkout", "--quiet", "-b", "feature/x")
    second = repository.commit_version(2)
    repository.git("tag", "v1")
    repository.git("checkout", "--quiet", "main")
    repository.commit_version(3)
    assert versions.read_version(repository.lab, name).commit == second


def test_main_is_that_of_the_server_whatever_its_head_is(repository: Repository) -> None:
    first = repository.commit_version(1)
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit_version(2)
    assert versions.read_version(repository.lab, "main").commit == first


def test_files_are_read_whole_whatever_letters_they_have(repository: Repository) -> None:
    files = {"empty": "", "one": "größer\n\n", "two": "王小明", "three": "no newline\nat the end"}
    commit = repository.commit("files", files)
    names = [f"{commit}:{name}" for name in files]
    found = versions.read_blobs(repository.lab, repository.folder, names)
    assert found == list(files.values())


def test_a_file_that_is_not_utf_8_is_in_nobodys_way(repository: Repository) -> None:
    (repository.folder / "one").write_bytes("größer\n".encode("latin-1"))
    commit = repository.commit("files", {"two": "größer"})
    names = [f"{commit}:one", f"{commit}:two"]
    found = versions.read_blobs(repository.lab, repository.folder, names)
    assert found == ["gr\ufffd\ufffder\n", "größer"]


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
