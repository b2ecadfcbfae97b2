"""What is taken of an origin, and what its newest configuration becomes: no server, no DVC."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.client import taken_in
from lab.errors import LabError
from lab.origin import mirror
from lab.origin.deliver import MESSAGE, list_kept, measure, name_store, write_message
from lab.origin.found import Missing, Origin, choose_name, find_reason, sort_data_sets
from lab.origin.objects import refuse_unreadable_remotes
from lab.project import DATA_NAME
from tests.support.histories import Repository, build_lab

LAB = replace(build_lab(Path("/lab"), "data/a.csv"), s3_bucket="lab-datasets")
STORE = "s3://lab-datasets/store"
MD5 = "0a" * 16
OUTPUT = {"path": "data/a.csv", "cached": True, "imported": False, "md5": MD5, "size": 1}


# --- URLs -----------------------------------------------------------------------------------------

TAKEN = [
    "https://example.org/me/data.git",
    "https://me@example.org/data",
    "ssh://git@example.org/me/data.git",
    "git@example.org:me/data.git",
    "file:///data/repository",
]


@pytest.mark.parametrize("url", TAKEN)
def test_a_url_stays_as_it_is(url: str) -> None:
    assert mirror.normalize_url(url) == url


def test_a_folder_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    assert mirror.normalize_url("a b") == str(tmp_path / "a b")
    for url in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b"):
        assert mirror.find_folder(url) == tmp_path / "a b"
    assert mirror.find_folder("git@example.org:a b") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=touch x",
        "ext::sh -c touch",
        "https://me:secret@example.org/data",
        "https://ghp_abc@example.org/data",
    ],
)
def test_what_git_would_run_or_a_file_would_give_away_is_refused(url: str) -> None:
    with pytest.raises(LabError) as raised:
        mirror.normalize_url(url)
    assert "secret" not in f"{raised.value.what} {raised.value.fix}"


def test_git_is_quoted_by_the_line_that_says_why() -> None:
    error = LabError("git clone failed: Could not read", "…")
    error.output = "+ git clone x\nWarning: added\ngit@x: Permission denied.\nfatal: Could not read"
    assert mirror.find_cause(error) == "git@x: Permission denied."


# --- The mirror -----------------------------------------------------------------------------------


def test_each_version_of_a_pointer_is_read_once_and_the_newest_commit_s_all(
    tmp_path: Path,
) -> None:
    me = Repository(tmp_path / "origin", "data/a.csv")
    first = me.commit_version(1)
    me.commit("settings", {".dvc/config": "", "data/zwei ü.csv.dvc": "x"})
    me.commit("other", {"README.md": "", ".dvc/tmp/x.dvc": "no pointer"})
    last = me.commit("pipeline", {"sub/dvc.lock": "{}", "sub/dvc.yaml": "{}"})
    found = mirror.ensure_mirror(str(me.folder), tmp_path, os.environ)
    pointers = mirror.list_pointers(found, str(me.folder), "main")
    listed = [(each.commit, each.path, each.newest) for each in pointers]
    assert listed[:3] == [
        (last, "data/a.csv.dvc", True),
        (last, "data/zwei ü.csv.dvc", True),
        (last, "sub/dvc.yaml", True),
    ]
    assert [each[:2] for each in listed[3:]][-1] == (first, "data/a.csv.dvc")
    texts = {each.path: each.text for each in pointers}
    assert texts["data/zwei ü.csv.dvc"] == "x"
    assert texts["sub/dvc.yaml"] is None
    assert {each.config for each in pointers if each.commit == first} == {("", "")}


def test_the_branch_that_a_clone_checks_out_is_the_default_one(tmp_path: Path) -> None:
    me = Repository(tmp_path / "origin", "data/a.csv")
    me.commit_version(1)
    me.git("branch", "other")
    me.git("symbolic-ref", "HEAD", "refs/heads/other")
    found = mirror.ensure_mirror(str(me.folder), tmp_path, os.environ)
    assert mirror.find_default_branch(found, "url") == "other"
    mirror.git(found, "update-ref", "--no-deref", "HEAD", "main")
    assert mirror.find_default_branch(found, "url") == "main"
    mirror.git(found, "branch", "--move", "main", "third")
    with pytest.raises(LabError, match="no default branch among other, third"):
        mirror.find_default_branch(found, "url")


# --- Data sets ------------------------------------------------------------------------------------


def test_names_are_those_that_lab_toml_takes() -> None:
    paths = ["data/Orders 2.csv", "x/orders-2", "7", "größe", "a" * 60, f"b/{'a' * 60}.x", "..."]
    taken: list[str] = []
    for path in paths:
        taken.append(choose_name(path, taken))
    assert taken[:4] == ["orders_2", "orders_2_2", "data_7", "gr_e"]
    assert all(DATA_NAME.fullmatch(name) for name in taken)
    assert len(set(taken)) == len(paths)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cached": False}, "kept by git"),
    ({"imported": True}, "imported from another repository"),
    ({"path": "data/b.csv"}, "about data/b.csv"),
    ({"md5": None}, "without an MD5"),
    ({"size": None}, "without a size"),
]


@pytest.mark.parametrize(("other", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_a_run_could_not_replace_is_no_data_set(other: dict[str, Any], why: str) -> None:
    pointer = {"path": "data/a.csv.dvc", "outputs": [{**OUTPUT, **other}], "why": ""}
    assert why in (find_reason(pointer) or "")


def test_a_pointer_that_is_none_or_has_an_odd_path_is_listed() -> None:
    newest: list[dict[str, Any]] = [
        {"path": "data/a.csv.dvc", "outputs": [OUTPUT], "why": ""},
        {"path": "b.dvc", "outputs": [OUTPUT, OUTPUT], "why": ""},
        {"path": "c.dvc", "outputs": [], "why": "no YAML"},
        {"path": "d:e.dvc", "outputs": [{**OUTPUT, "path": "d:e"}], "why": ""},
    ]
    taken, refused = sort_data_sets(newest)
    assert taken == {"a": "data/a.csv"}
    assert list(refused) == ["b", "c", "d:e"]
    assert "no YAML" in refused["c"]


# --- What can't be read ---------------------------------------------------------------------------

REMOTE = {"name": "r", "url": "gs://x", "newest": True, "error": "", "unsettled": ""}
LOST = {"md5": MD5, "commits": {}, "why": "r does not have it"}


@pytest.mark.parametrize(
    ("remote", "objects", "what"),
    [
        ({"error": "gs is supported, but requires 'dvc-gs'"}, 1, "can't be read: gs is supported"),
        ({"unsettled": "timed out"}, 1, "broke off: timed out"),
        ({}, 0, "none of the origin's 1 objects is to be had"),
    ],
)
def test_what_another_attempt_may_bring_is_not_listed_as_missing(
    remote: dict[str, str], objects: int, what: str
) -> None:
    said = {"objects": objects, "missing": [LOST], "remotes": [{**REMOTE, **remote}]}
    with pytest.raises(LabError, match=what):
        refuse_unreadable_remotes(said)
    refuse_unreadable_remotes({**said, "missing": []})


def test_a_remote_that_only_older_commits_name_may_be_gone() -> None:
    gone = {**REMOTE, "newest": False, "error": "there is no such folder"}
    refuse_unreadable_remotes({"objects": 1, "missing": [LOST], "remotes": [gone]})


# --- The lab's commit -----------------------------------------------------------------------------


def test_the_store_becomes_the_default_remote_and_all_else_stays() -> None:
    before = """# ours
[core]
    remote = s3
    autostage = true
['remote "s3"']
    url = s3://other/store
    profile = work
['remote "lab"']
    url = /somewhere
"""
    after = name_store(before, LAB, ["s3"])
    assert after.splitlines() == [
        "# ours",
        "[core]",
        "    remote = lab-2",
        "    autostage = true",
        "['remote \"s3\"']",
        f"    url = {STORE}",
        "['remote \"lab\"']",
        "    url = /somewhere",
        "['remote \"lab-2\"']",
        f"    url = {STORE}",
    ]
    assert name_store(after, LAB, ["s3"]) == after


def test_a_repository_without_settings_gets_them() -> None:
    assert (
        name_store("", LAB, []).split()
        == f"[core] remote = lab ['remote \"lab\"'] url = {STORE}".split()
    )
    with pytest.raises(LabError, match=r"^\.dvc/config of the origin is none"):
        name_store("[core", LAB, [])


def test_the_lab_s_commit_says_what_was_missing(tmp_path: Path) -> None:
    me = Repository(tmp_path / "lab", "data/a.csv")
    tip = me.commit_version(1)
    missing = (Missing("ff" * 16, {}, ""), Missing(MD5, {}, ""), Missing(MD5, {}, ""))
    found = Origin("url", "main", 1, (), (), {}, {}, 0, 0, missing, (), (), ())
    made = me.commit(write_message(found, tip), {".dvc/config": ""})
    later = me.commit_version(2)
    me.git("checkout", "--quiet", "-b", "other", tip)
    beside = me.commit_version(3)
    clone = tmp_path / "clone"
    me.git("clone", "--quiet", str(me.folder), str(clone))
    taken = taken_in.read_taken_in(me.lab, clone)
    assert taken
    assert (taken.commit, taken.lost) == (made, frozenset({MD5, "ff" * 16}))
    assert [taken.is_older(each) for each in (tip, beside, made, later)] == [
        True,
        True,
        False,
        False,
    ]
    assert taken_in.lost_at(taken, later) == frozenset()
    assert taken_in.lost_at(taken, tip) == taken.lost
    assert "git restore --source=origin/main -- .dvc/config" in MESSAGE


def test_a_repository_that_no_lab_took_in_has_no_such_commit(tmp_path: Path) -> None:
    me = Repository(tmp_path / "lab", "data/a.csv")
    me.commit_version(1)
    me.commit("words\n\nTaken-In-At: nothing\n\nbut no trailer", {})
    clone = tmp_path / "clone"
    me.git("clone", "--quiet", str(me.folder), str(clone))
    assert taken_in.read_taken_in(me.lab, clone) is None
    assert taken_in.lost_at(None, "main") == frozenset()


# --- The cache ------------------------------------------------------------------------------------


def test_objects_of_both_layouts_are_measured_by_their_names(tmp_path: Path) -> None:
    crlf = b"a\r\nb\r\n"
    names = {
        "files/md5/60/b725f10c9c85c70d97880dfe8191b3": b"a\n",
        "files/md5/60/b725f10c9c85c70d97880dfe8191b3.dir": b"a\n",
        "dd/8c6a395b5dd36c56d23275028f526c": crlf,  # of LF
        "files/md5/00/00000000000000000000000000000f": b"damaged",
    }
    for name, content in names.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = {each.key.removeprefix("store/"): each for each in list_kept(tmp_path)}
    assert found.keys() == names.keys()
    damaged = found.pop("files/md5/00/00000000000000000000000000000f")
    with pytest.raises(LabError, match="is damaged"):
        measure(damaged)
    assert {measure(each) for each in found.values()} == {
        "60b725f10c9c85c70d97880dfe8191b3",
        "59b0d7772f0561efb95518f3cb8abc60",
    }
