"""The graph of commits: which are versions, and which of them others were made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.client import versions
from lab.client.history import History
from lab.errors import CommitError
from tests.support.histories import Repository, md5_of

DATASET = "datasets/a.csv"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "datasets", DATASET)


def read(repository: Repository, commit: str = "main") -> History:
    return versions.read_graph(repository.lab, repository.folder, commit)


def list_sizes(history: History) -> list[int | None]:
    return [version.size for version in history.versions]


def branch_off(repository: Repository, commit: str = "HEAD") -> None:
    repository.git("checkout", "--quiet", "-b", "colleague", commit)


def return_to_main(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "main")


def test_both_sides_of_a_merge_and_what_it_brings_are_versions(repository: Repository) -> None:
    first = repository.commit_version(1)
    branch_off(repository)
    theirs = repository.commit_version(2)
    return_to_main(repository)
    ours = repository.commit_version(3)
    merge = repository.merge_by_hand("colleague", 4)
    last = repository.commit_version(5)
    history = read(repository)
    assert [v.commit for v in history.versions] == [last, merge, ours, theirs, first]
    assert history.origins == {
        first: set(),
        theirs: {md5_of(1)},
        ours: {md5_of(1)},
        merge: {md5_of(2), md5_of(3)},
        last: {md5_of(4)},
    }


@pytest.mark.parametrize("how", ["ours", "theirs"])
def test_a_merge_that_takes_a_side_has_its_version_and_keeps_the_other(
    how: str, repository: Repository
) -> None:
    repository.commit_version(1)
    branch_off(repository)
    theirs = repository.commit_version(2)
    return_to_main(repository)
    ours = repository.commit_version(3)
    repository.merge("colleague", f"-X{how}")
    last = repository.commit_version(4)
    history = read(repository, "main~1")
    assert history.version.commit == {"ours": ours, "theirs": theirs}[how]
    assert list_sizes(history) == {"ours": [3, 2, 1], "theirs": [2, 3, 1]}[how]
    assert read(repository).origins[last] == {history.version.md5}


def test_a_merge_of_branches_that_agree_is_no_version(repository: Repository) -> None:
    repository.commit_version(1)
    branch_off(repository)
    repository.commit_version(2)
    repository.commit("their own", {"theirs": "hello"})
    return_to_main(repository)
    ours = repository.commit_version(2)
    repository.merge("colleague")
    history = read(repository)
    assert history.version.commit == ours
    assert list_sizes(history) == [2, 2, 1]


def test_a_branch_that_brings_other_files_changes_no_version(repository: Repository) -> None:
    first = repository.commit_version(1)
    branch_off(repository)
    repository.commit("a model", {"model": "hello"})
    return_to_main(repository)
    second = repository.commit_version(2)
    repository.merge("colleague")
    history = read(repository)
    assert [v.commit for v in history.versions] == [second, first]


def test_unrelated_histories_have_one_each(repository: Repository) -> None:
    repository.commit_version(1)
    repository.git("checkout", "--quiet", "--orphan", "colleague")
    repository.commit_version(2)
    return_to_main(repository)
    merge = repository.merge_by_hand("colleague", 3, "--allow-unrelated-histories")
    assert read(repository).origins[merge] == {md5_of(1), md5_of(2)}


def test_a_pointer_that_was_removed_and_restored_is_a_version_again(
    repository: Repository,
) -> None:
    first = repository.commit_version(1)
    repository.git("rm", "--quiet", repository.pointer)
    removed = repository.commit("removed", {})
    repository.commit("something else", {"README": "hello"})
    repository.git("revert", "--no-edit", removed)
    restored = repository.git("rev-parse", "HEAD")
    second = repository.commit_version(2)
    history = read(repository)
    assert [v.commit for v in history.versions] == [second, restored, first]
    assert history.origins[restored] == {md5_of(1)}
    gone = read(repository, removed)
    assert [v.commit for v in gone.versions] == [first]
    with pytest.raises(CommitError, match=f"{removed} has no {DATASET}.dvc: this commit has no da"):
        _ = gone.version


def test_a_pointer_that_was_none_for_a_while_is_no_version(repository: Repository) -> None:
    repository.commit_version(1)
    repository.commit("a conflict", {repository.pointer: "<<<<<<< HEAD\n"})
    after = repository.commit_version(2)
    history = read(repository)
    assert list_sizes(history) == [2, 1]
    assert history.origins[after] == {md5_of(1)}


def test_the_newest_first_holds_where_clocks_disagree(repository: Repository) -> None:
    repository.commit_version(1)
    repository.clock -= 10**6
    repository.commit_version(2)
    repository.clock -= 10**6
    repository.commit_version(3)
    assert list_sizes(read(repository)) == [3, 2, 1]


def test_another_file_mode_or_name_of_a_commit_is_no_version(repository: Repository) -> None:
    first = repository.commit_version(1)
    (repository.folder / repository.pointer).chmod(0o755)
    repository.commit("executable", {})
    assert [v.commit for v in read(repository).versions] == [first]


def test_a_pointer_is_held_by_a_commit_of_each_configuration(repository: Repository) -> None:
    first = repository.commit_version(1)
    repository.commit("nothing", {})
    moved = repository.commit("moved", {".dvc/config": "[core]\n    remote = b\n"})
    repository.commit_version(2)
    below = repository.commit("below", {"datasets/.dvc/config": "[core]\n    remote = c\n"})
    history = read(repository)
    one, two = (history.pointers[name].blob for name in (first, below))
    assert [commit.name for commit in history.holders[one]] == [first, moved]
    assert len({commit.config for commit in history.holders[one] + history.holders[two]}) == 3
