"""The proof's look at the lineage: sound histories that git makes of runs, and false ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.client import verify, versions
from lab.console import show_proof
from lab.errors import ProofError
from lab.model import Proof, Version
from tests.support.histories import Repository, md5_of


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with an import and a run, from which a colleague has branched off."""
    made = Repository(tmp_path / "datasets", "datasets/a.csv")
    made.commit_version(1)
    made.commit_run("r1", 2, parent=1)
    made.git("branch", "colleague")
    return made


def check(repository: Repository, commit: str = "main") -> None:
    verify.check_lineage(versions.read_graph(repository.lab, repository.folder, commit))


def switch(repository: Repository, branch: str) -> None:
    repository.git("checkout", "--quiet", branch)


def commit_theirs(repository: Repository, number: int) -> None:
    """Commit a version on the colleague's branch, and return to main."""
    switch(repository, "colleague")
    repository.commit_version(number)
    switch(repository, "main")


# --- Sound --------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_merge_of_a_run_and_a_colleagues_data_is_sound(
    theirs_first: bool, repository: Repository
) -> None:
    if theirs_first:
        commit_theirs(repository, 3)
    repository.commit_run("r2", 4, parent=2)
    if not theirs_first:
        commit_theirs(repository, 3)
    repository.merge_by_hand("colleague", 5)
    check(repository)
    repository.commit_run("r3", 6, parent=5)
    check(repository)


@pytest.mark.parametrize(("how", "taken"), [("ours", 4), ("theirs", 3)])
def test_a_run_on_a_merge_that_took_a_side_is_sound(
    how: str, taken: int, repository: Repository
) -> None:
    commit_theirs(repository, 3)
    repository.commit_run("r2", 4, parent=2)
    repository.merge("colleague", f"-X{how}")
    repository.commit_run("r3", 5, parent=taken)
    check(repository)


def test_a_run_merged_from_a_branch_is_sound(repository: Repository) -> None:
    switch(repository, "colleague")
    repository.commit_run("r2", 3, parent=2)
    switch(repository, "main")
    repository.commit("something else", {"README": "hello"})
    repository.merge("colleague")
    repository.commit_run("r3", 4, parent=3)
    check(repository)


def test_a_run_after_a_removal_and_its_revert_is_sound(repository: Repository) -> None:
    repository.git("rm", "--quiet", repository.pointer)
    repository.commit("removed", {})
    repository.git("revert", "--no-edit", "HEAD")
    repository.commit_run("r2", 3, parent=2)
    check(repository)


def test_a_run_that_was_reverted_and_picked_again_is_one_run(repository: Repository) -> None:
    run = repository.commit_run("r2", 3, parent=2)
    repository.git("revert", "--no-edit", "HEAD")
    repository.git("cherry-pick", "-x", "--signoff", run)
    repository.commit_run("r3", 4, parent=3)
    check(repository)


def test_a_run_that_a_colleague_picked_is_one_run_after_the_merge(repository: Repository) -> None:
    run = repository.commit_run("r2", 3, parent=2)
    switch(repository, "colleague")
    repository.commit_version(4)
    repository.git("cherry-pick", "-Xtheirs", run)  # onto other data than the run began with
    switch(repository, "main")
    repository.merge("colleague")
    check(repository)


def test_a_history_may_begin_with_a_run_from_elsewhere(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "datasets", "datasets/a.csv")
    repository.commit_run("r9", 9, parent=8)
    repository.commit_run("r10", 10, parent=9)
    check(repository)


# --- False --------------------------------------------------------------------------------------


def expect_false_parent(repository: Repository, named: int, *before: int) -> None:
    said = " or ".join(sorted(md5_of(number) for number in before))
    why = f"names parent {md5_of(named)}, the version before it is {said}"
    with pytest.raises(ProofError, match=why):
        check(repository)


def test_a_false_parent_is_found(repository: Repository) -> None:
    repository.commit_run("r2", 3, parent=1)
    repository.commit_version(4)
    expect_false_parent(repository, 1, 2)


def test_a_false_parent_is_found_on_the_side_that_a_merge_did_not_take(
    repository: Repository,
) -> None:
    switch(repository, "colleague")
    repository.commit_run("r2", 3, parent=1)
    switch(repository, "main")
    repository.commit_run("r3", 4, parent=2)
    repository.merge("colleague", "-Xours")
    expect_false_parent(repository, 1, 2)


def test_a_parent_of_the_other_branch_is_false_before_the_merge(repository: Repository) -> None:
    commit_theirs(repository, 3)
    repository.commit_run("r2", 4, parent=3)
    repository.merge_by_hand("colleague", 5)
    expect_false_parent(repository, 3, 2)


def test_a_side_of_a_merge_is_no_parent_of_what_comes_after_it(repository: Repository) -> None:
    commit_theirs(repository, 3)
    repository.commit_run("r2", 4, parent=2)
    repository.merge_by_hand("colleague", 5)
    repository.commit_run("r3", 6, parent=4)
    expect_false_parent(repository, 4, 5)


def test_a_false_parent_of_a_merge_names_both_sides(repository: Repository) -> None:
    commit_theirs(repository, 3)
    repository.commit_run("r2", 4, parent=2)
    repository.merge_by_hand("colleague", 5)
    repository.git("commit", "--amend", "--message", f"x\n\nData-Parent: {md5_of(2)}")
    expect_false_parent(repository, 2, 3, 4)


def test_a_version_that_was_cut_out_of_the_history_is_missed(repository: Repository) -> None:
    before = repository.commit_run("r2", 3, parent=2)
    repository.commit_run("r3", 4, parent=3)
    repository.git("rebase", "--quiet", "-Xtheirs", "--onto", f"{before}~1", before, "main")
    expect_false_parent(repository, 3, 2)


@pytest.mark.parametrize("number", [4, 3])
def test_a_second_commit_of_a_run_is_found(number: int, repository: Repository) -> None:
    repository.commit_run("r2", 3, parent=2)
    repository.git("revert", "--no-edit", "HEAD")
    repository.commit_run("r2", number, parent=2)
    with pytest.raises(ProofError, match="more than one commit of run r2"):
        check(repository)


def test_a_second_commit_of_a_run_is_found_on_another_branch(repository: Repository) -> None:
    switch(repository, "colleague")
    repository.commit_run("r2", 3, parent=2)
    switch(repository, "main")
    repository.commit_run("r2", 3, parent=2)
    repository.merge("colleague")
    with pytest.raises(ProofError, match="more than one commit of run r2"):
        check(repository)


def test_runs_of_two_dags_may_have_one_name(repository: Repository) -> None:
    repository.commit_version(3, f"Run-Id: r1\nDag-Id: other\nData-Parent: {md5_of(2)}")
    check(repository)


# --- Who made it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trailers", "maker"),
    [
        ({"Data-Md5": "a", "Data-Path": "b", "Run-Id": "r", "Dag-Id": "d"}, "run"),
        ({"Data-Md5": "a", "Data-Path": "b", "Data-Size": "1"}, "import"),
        ({}, "hand"),
        ({"Signed-off-by": "somebody"}, "hand"),
    ],
)
def test_a_version_is_made_by_a_run_by_the_import_or_by_hand(
    trailers: dict[str, str], maker: str
) -> None:
    assert verify.find_maker(Version("c0ffee", "a", 1, trailers)) == maker


@pytest.mark.parametrize(
    ("run_id", "maker", "shown"),
    [
        ("manual__1", "run", "manual__1"),
        (None, "import", "none (the first import)"),
        (None, "hand", "none (a commit made by hand)"),
    ],
)
def test_a_shown_proof_says_who_made_the_version(
    run_id: str | None, maker: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_proof(Proof(True, "c0ffee", "a", 1, "s3://b/a", run_id, None, 0, maker))
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.split()[0] == "run")
    assert line.split(maxsplit=1)[1] == shown
