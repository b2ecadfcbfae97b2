"""The proof's look at the lineage: sound histories that git makes of runs, and false ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.client import verify, versions
from lab.client.trailers import find_maker
from lab.console import show_proof
from lab.errors import ProofError
from lab.model import DataProof, Proof, Version
from tests.support.histories import Repository, md5_of


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with an import and a run, from which a colleague has branched off."""
    made = Repository(tmp_path / "datasets", "datasets/a.csv")
    made.commit_version(1)
    made.commit_run("r1", 2, parent=1)
    made.git("branch", "colleague")
    return made


def named_parent(repository: Repository, number: int) -> str:
    """Return the trailers by which a commit names the version that the dataset's was made from."""
    return f"Data-Path: {repository.dataset}\nData-Parent: {md5_of(number)}"


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
    repository.git("commit", "--amend", "--message", f"x\n\n{named_parent(repository, 2)}")
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
    repository.commit_version(3, f"Run-Id: r1\nDag-Id: other\n{named_parent(repository, 2)}")
    check(repository)


# --- Several data sets --------------------------------------------------------------------------

A, B = "datasets/a.csv", "data/b"


@pytest.fixture
def several(tmp_path: Path) -> Repository:
    """Return a repository whose first run has published two data sets."""
    made = Repository(tmp_path / "datasets", A, b=B)
    made.publish("r1", {A: (1, 0), B: (2, 0)})
    return made


def check_all(repository: Repository) -> None:
    histories = versions.read_data_sets(repository.lab, repository.folder, "main")
    for history in histories.values():
        verify.check_trailers(history.version)
        verify.check_lineage(history)
        verify.check_sources(history, histories)


def test_a_run_has_one_commit_for_all_its_data_sets(several: Repository) -> None:
    first = several.publish("r2", {A: (3, 1), B: (4, 2)})
    several.publish("r3", {B: (5, 4)}, read={A: first})
    check_all(several)


def test_a_false_parent_of_the_second_data_set_is_found(several: Repository) -> None:
    several.publish("r2", {A: (3, 1), B: (4, 1)})
    with pytest.raises(ProofError, match=f"names parent {md5_of(1)}, .* is {md5_of(2)}$"):
        check_all(several)


def test_a_second_commit_of_a_run_is_one_too_many_for_each_data_set(several: Repository) -> None:
    several.publish("r2", {A: (3, 1)})
    several.publish("r2", {B: (4, 2)})  # another data set: two tasks may publish
    check_all(several)
    several.publish("r2", {B: (5, 4)})
    with pytest.raises(ProofError, match="more than one commit of run r2"):
        check_all(several)


def test_trailers_of_another_data_set_say_nothing_of_this_one(several: Repository) -> None:
    """A person has added another pointer to a run's commit."""
    several.publish("r2", {A: (3, 1)})
    (several.folder / f"{B}.dvc").write_text(several.write_pointer(4, B)[f"{B}.dvc"])
    several.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    check_all(several)
    histories = versions.read_data_sets(several.lab, several.folder, "main")
    assert find_maker(histories["b"].version) == "hand"


def test_a_pointer_that_is_not_what_its_own_trailers_say_is_found(several: Repository) -> None:
    several.publish("r2", {A: (3, 1), B: (4, 2)})
    (several.folder / f"{B}.dvc").write_text(several.write_pointer(5, B)[f"{B}.dvc"])
    several.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    with pytest.raises(ProofError, match=f"says Data-Md5 {md5_of(4)} and Data-Size 4, its pointer"):
        check_all(several)


def test_a_version_that_a_run_has_not_read_is_found(several: Repository) -> None:
    first = several.git("rev-parse", "HEAD")
    several.publish("r2", {A: (3, 1)})
    several.publish("r3", {B: (4, 2)}, read={A: first})
    check_all(several)
    message = several.git("log", "-1", "--format=%B")
    false = message.replace(f"From-Md5: {md5_of(1)}", f"From-Md5: {md5_of(3)}")
    several.git("commit", "--quiet", "--amend", "--message", false)
    with pytest.raises(
        ProofError, match=f"read {A} with MD5 {md5_of(3)} at {first}, whose pointer"
    ):
        check_all(several)


# --- Who made it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trailers", "maker"),
    [
        ({"Data-Md5": "a", "Data-Path": "b", "Run-Id": "r", "Dag-Id": "d"}, "run"),
        ({"Data-Md5": "a", "Data-Path": "b", "Data-Size": "1"}, "import"),
        ({"Run-Id": "r", "Data-Md5": "b", "Model-Md5": "a"}, "run"),  # an older model
        ({"Run-Id": "r", "Data-Md5": "b", "Model-Md5": "b"}, "hand"),  # of another
        ({"Run-Id": "r"}, "hand"),  # of other data
        ({}, "hand"),
        ({"Signed-off-by": "somebody"}, "hand"),
    ],
)
def test_a_version_is_made_by_a_run_by_the_import_or_by_hand(
    trailers: dict[str, str], maker: str
) -> None:
    assert find_maker(Version("c0ffee", "a", 1, trailers)) == maker


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


def test_a_shown_proof_has_a_line_for_each_of_several_data_sets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    proofs = (
        DataProof("dataset", A, "c1", "a", 1, "s3://b/a", None, "manual__1", "v1", 2, "run"),
        DataProof("b", B, "c2", "b.dir", 7, "s3://b/b", 3, None, None, 0, "import"),
        DataProof("x.bin", "x.bin", "c2", "c", 9, "s3://b/c", None, "r", None, 1, "run"),
    )
    show_proof(Proof(True, "c1", "a", 1, "s3://b/a", "manual__1", "v1", 2, "run", proofs))
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("Proved: this commit brings its 3 data sets back, byte for byte")
    assert lines[-4:] == [
        "data sets:",
        f"  dataset              {A}, 1 bytes, 2 earlier versions, by manual__1",
        f"  b                    {B}, 3 files, 7 bytes, 0 earlier versions, by the first import",
        "  x.bin                9 bytes, 1 earlier versions, by r",
    ]


@pytest.mark.parametrize(("name", "shown"), [("dataset", "dataset"), ("b", f"b ({B})")])
def test_a_shown_proof_of_one_data_set_names_it(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = DataProof(name, B, "c1", "a", 1, "s3://b/a", None, None, None, 2, "hand")
    show_proof(Proof(True, "c1", "a", 1, "s3://b/a", None, None, 2, "hand", (one,)))
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith(f"Proved: this commit brings its {shown} back, byte for byte")
    assert "data sets:" not in lines
