"""The datasets repository, read as anybody would read it: with git, without the steps' code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.client import verify, versions
from lab.client.history import Pointer
from lab.client.trailers import find_maker
from lab.errors import CommitError, LabError, ProofError
from lab.lab import Lab
from lab.model import Source, Version
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
    ("text", "md5", "size", "files"),
    [
        (POINTER.format(md5=MD5, size=7, name="a"), MD5, 7, None),
        (f"outs:\n- md5: {MD5}\n  size: 7\n  path: a.csv\n", MD5, 7, None),  # DVC 2
        (f"md5: {MD5}\nouts:\n- md5: {MD5}\n  path: a.csv\n", MD5, None, None),  # DVC 1
        (f"outs:\n- md5: {MD5}.dir\n  size: 7\n  nfiles: 2\n  path: a\n", f"{MD5}.dir", 7, 2),
        (f"outs:\n- md5: {MD5}.dir\n  path: a\n", f"{MD5}.dir", None, None),
    ],
)
def test_a_version_is_what_its_pointer_says(
    text: str, md5: str, size: int | None, files: int | None
) -> None:
    assert versions.parse_pointer("b10b", text) == Pointer("b10b", text, md5, size, files)


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


# --- Data sets ----------------------------------------------------------------------------------

A, B, C, MODEL = "datasets/a.csv", "data/b", "data/größe", "models/attrition.joblib"


@pytest.fixture
def several(tmp_path: Path) -> Repository:
    """Return a repository with the dataset, two data sets that are declared, and others.

    A run has made `C`, a person `data/mine`; of `later` there is no version yet.
    """
    made = Repository(tmp_path / "datasets", A, b=B, later="data/later")
    made.commit_version(1, f"Data-Path: {A}\nData-Md5: {md5_of(1)}\nData-Size: 1")
    made.commit_version(2, path=B)
    made.publish("r1", {C: (3, 0)})
    made.commit_version(4, path="data/mine")
    return made


def list_names(
    repository: Repository, commit: str = "main", wanted: str | None = None
) -> list[str]:
    return [*versions.read_data_sets(repository.lab, repository.folder, commit, wanted)]


def test_a_commits_data_sets_are_those_declared_and_those_that_a_run_made(
    several: Repository,
) -> None:
    assert list_names(several) == ["dataset", "b", C]
    assert list_names(several, "main~3") == ["dataset"]
    several.commit_version(5, path=C)  # by a person now
    assert list_names(several) == ["dataset", "b"]
    several.publish("r2", {"data/later": (6, 0), C: (7, 5)})
    assert list_names(several) == ["dataset", "b", "later", C]
    several.git("rm", "--quiet", f"{A}.dvc")
    several.commit("no dataset", {})
    assert list_names(several) == ["b", "later", C]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("dataset", "dataset"), ("b", "b"), (B, "b"), (f"./{B}/", "b"), (C, C), (f"{C}.dvc", C)],
)
def test_a_data_set_is_chosen_by_its_name_or_its_path(
    wanted: str, name: str, several: Repository
) -> None:
    assert list_names(several, wanted=wanted) == [name]
    assert list_names(several, wanted="data/mine") == ["data/mine"]


@pytest.mark.parametrize("wanted", ["later", "data/later", "nothing", "", "/", "../b"])
def test_an_unknown_data_set_is_refused_with_the_names_there_are(
    wanted: str, several: Repository
) -> None:
    with pytest.raises(CommitError) as raised:
        list_names(several, wanted=wanted)
    assert raised.value.what == f"there is no data set {wanted!r}: there is dataset, b, {C}"


def test_a_commit_that_changes_one_data_set_is_no_version_of_another(several: Repository) -> None:
    several.publish("r2", {B: (5, 2)})
    several.publish("r3", {B: (6, 5), C: (7, 3)})
    sizes = {
        name: [version.size for version in versions.read_history(several.lab, "main", name)]
        for name in ("dataset", "b")
    }
    assert sizes == {"dataset": [1], "b": [6, 5, 2]}
    assert versions.read_version(several.lab, "main~1", "b").size == 5


def test_a_version_has_the_trailers_of_its_run_and_its_own(several: Repository) -> None:
    read = several.git("rev-parse", "HEAD~1")
    several.publish("r2", {B: (5, 2), A: (6, 1)}, read={C: read})
    several.git("commit", "--amend", "--quiet", "--no-edit", "--signoff")
    run = {"Run-Id": "r2", "Dag-Id": "dataset_pipeline", "Dag-Version": "c0ffee"}
    for name, path, number, parent in (("dataset", A, 6, 1), ("b", B, 5, 2)):
        version = versions.read_version(several.lab, "main", name)
        own = {"Data-Path": path, "Data-Md5": md5_of(number), "Data-Size": str(number)}
        signed = {"Signed-off-by": "test <test@localhost>"}
        assert version.trailers == {**run, **own, "Data-Parent": md5_of(parent), **signed}
        assert version.sources == (Source(C, read, md5_of(3)),)


def test_a_name_that_is_not_declared_has_no_versions(several: Repository) -> None:
    with pytest.raises(CommitError, match=r"no data set 'c': there is dataset, b, later$"):
        versions.read_version(several.lab, "main", "c")
    with pytest.raises(CommitError, match=r"^main has no data/later\.dvc: .* no data set later$"):
        versions.read_history(several.lab, "main", "later")


def test_each_data_set_is_listed_with_its_version_or_why_it_has_none(several: Repository) -> None:
    several.git("rm", "--quiet", f"{B}.dvc")
    several.commit("gone", {})
    found = {each.name: each for each in versions.list_data_sets(several.lab, "main")}
    assert {name: each.path for name, each in found.items()} == {
        "dataset": A,
        "b": B,
        "later": "data/later",
        C: C,
    }
    assert [each.version.size for each in found.values() if each.version] == [1, 3]
    assert (found["later"].error, found["later"].version) == ("no version yet", None)
    assert found["b"].error == "main has no data/b.dvc: this commit has no data set b"


def test_an_empty_repository_has_no_version_of_any_data_set(tmp_path: Path) -> None:
    empty = Repository(tmp_path / "datasets", A, b=B)
    found = versions.list_data_sets(empty.lab, "main")
    assert [(each.name, each.version) for each in found] == [("dataset", None), ("b", None)]
    assert {each.error for each in found} == {"the datasets repository has no commit 'main'"}


# --- The model ----------------------------------------------------------------------------------


@pytest.fixture
def modelled(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "datasets", A, model=MODEL)
    made.commit_run("r1", 1, parent=0)
    made.commit("metrics", {"models/attrition.metrics.json": '{"roc_auc": 0.8}'})
    return made


def test_a_model_names_the_data_that_it_was_trained_on(modelled: Repository) -> None:
    data = modelled.git("rev-parse", "HEAD~1")
    modelled.publish("r2", {MODEL: (2, 0)}, read={A: data})
    model = versions.read_model(modelled.lab, "main")
    assert (model.data_commit, model.md5) == (data, md5_of(2))
    assert model.trailers["Data-Md5"] == md5_of(2)


def test_a_model_of_an_older_run_is_read_and_is_its_runs(tmp_path: Path) -> None:
    """Its commit names no path, and the MD5 in it is that of the data."""
    made = Repository(tmp_path / "datasets", A)
    made.commit_run("r1", 1, parent=0)
    made.commit("metrics", {"models/attrition.metrics.json": '{"roc_auc": 0.8}'})
    said = f"Run-Id: r2\nData-Commit: c0ffee\nData-Md5: {md5_of(1)}\nModel-Md5: {md5_of(2)}"
    made.commit_version(2, said, MODEL)
    assert versions.read_model(made.lab, "main").data_commit == "c0ffee"
    histories = versions.read_data_sets(made.lab, made.folder, "main")
    assert [*histories] == ["dataset", MODEL]
    assert find_maker(histories[MODEL].version) == "run"
    verify.check_trailers(histories[MODEL].version)
    verify.check_lineage(histories[MODEL])


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
