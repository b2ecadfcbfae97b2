"""The proof of a commit's data sets: commit, pointer, object, bytes, run and lineage of each.

Nothing here trusts the pipeline: it uses none of the steps' code, reads the bucket itself, and lets
the `dvc` command line pull the data in a clone of its own.
"""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

from lab.client import data, dvc_process, runs, s3, versions
from lab.client.data import Data
from lab.client.dvc_process import Locate, Place, Question
from lab.client.git import run_git
from lab.client.history import History
from lab.client.objects import Bucket
from lab.client.taken_in import TakenIn, find_store, lost_at, read_taken_in
from lab.client.trailers import HAND, find_maker
from lab.data_sets import POINTER
from lab.errors import ProofError
from lab.model import Access, DataProof, Proof, Version


def prove_commit(lab: Access, commit: str, wanted: str | None = None) -> Proof:
    """Prove that `commit` (`main` is the newest one) reproduces each of its data sets.

    With `wanted`, the name or the path of one, that one only. Raises CommitError and ProofError.
    """
    with versions.temporary_clone(lab) as clone:
        histories = versions.read_data_sets(lab, clone, commit, wanted)
        head = next(iter(histories.values())).head.name
        run_git(lab, "checkout", "--quiet", head, cwd=clone)
        taken = read_taken_in(lab, clone)
        with dvc_process.locating(lab, clone, taken) as locate:
            proofs = prove_data_sets(lab, clone, locate, histories, taken)
    first = asdict(proofs[0])
    kept = {field.name: first[field.name] for field in fields(Proof) if field.name in first}
    return Proof(ok=True, data=tuple(proofs), **kept)


def prove_data_sets(
    lab: Access,
    clone: Path,
    locate: Locate,
    histories: Mapping[str, History],
    taken: TakenIn | None,
) -> list[DataProof]:
    """Prove each data set of the commit that is checked out. Raises ProofError."""
    bucket, objects = Bucket(lab), clone.parent / "objects"
    objects.mkdir()
    paths = [history.path.removesuffix(POINTER) for history in histories.values()]
    head = next(iter(histories.values())).head.name
    named = partial(naming, alone=len(paths) == 1)
    newest: dict[str, Version] = {}
    for name, history in histories.items():
        with named(name):
            newest[name] = history.version
    fetched: dict[str, tuple[Data, dict[str, Path]]] = {}
    store = find_store(lab, taken, head)
    with dvc_process.pulling(lab, clone, *paths, store=store) as finish:
        located = data.locate_versions(locate, histories)
        for number, (name, version) in enumerate(newest.items()):
            with named(name):
                answer, into = located[name][version.commit][0], objects / str(number)
                lost = lost_at(taken, version.commit)
                fetched[name] = fetch_version(locate, bucket, version, answer, into, lost)
        finish()
    older = {name: list_older(history, taken) for name, history in histories.items()}
    for name, history in histories.items():
        with named(name):
            check_pulled(clone, history, fetched[name][1])
            check_trailers(newest[name])
            check_lineage(history)
            check_sources(history, histories)
            answers = [(each, located[name][each.commit]) for each in older[name]]
            data.check_older(locate, bucket, answers, taken)
    check_runs(lab, newest.values())
    return [build_proof(name, histories[name], *fetched[name], len(older[name])) for name in older]


def fetch_version(
    locate: Locate,
    bucket: Bucket,
    version: Version,
    answer: tuple[Question, Place | str],
    into: Path,
    lost: frozenset[str],
) -> tuple[Data, dict[str, Path]]:
    """Return where the data of a version is, and copies of it in the folder `into`.

    Raises ProofError, which says so when it was missing already where the repository comes from.
    """
    hashes = {version.md5}
    try:
        found = data.open_data(bucket, version, *answer)
        hashes |= {file.md5 for file in found.files or ()}
        return found, data.fetch_data(locate, bucket, found, into)
    except ProofError as error:
        if gone := sorted(hashes & lost):
            raise lost_error(version, gone) from error
        raise


def lost_error(version: Version, gone: Sequence[str]) -> ProofError:
    more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
    return ProofError(
        f"the version of {version.commit} was not whole when the lab took the repository in: its "
        f"origin had no object of {gone[0]}{more}",
        "choose another commit; or bring the object from a backup of the origin to the lab's store",
    )


def list_older(history: History, taken: TakenIn | None) -> list[Version]:
    """List the versions before the newest one, but those whose object the origin had no more."""
    older = history.versions[1:]
    return [each for each in older if each.md5 not in lost_at(taken, each.commit)]


@contextmanager
def naming(name: str, *, alone: bool) -> Iterator[None]:
    """Have a ProofError of the block name its data set, unless that is the only one."""
    try:
        yield
    except ProofError as error:
        if alone:
            raise
        raise ProofError(f"{name}: {error.what}", error.fix, error.log) from error


def build_proof(
    name: str, history: History, found: Data, copies: Mapping[str, Path], older: int
) -> DataProof:
    newest = found.version
    is_made = find_maker(newest) != HAND
    return DataProof(
        name=name,
        path=history.path.removesuffix(POINTER),
        commit=newest.commit,
        md5=newest.md5,
        size=sum(copy.stat().st_size for copy in copies.values()),
        object=found.name_object().url,
        files=None if found.files is None else len(found.files),
        run_id=newest.trailers.get("Run-Id") if is_made else None,
        dag_version=newest.trailers.get("Dag-Version") if is_made else None,
        parents_checked=older,
        made_by=find_maker(newest),
    )


def check_pulled(clone: Path, history: History, copies: Mapping[str, Path]) -> None:
    """Check that `dvc pull` has brought the objects' bytes. Raises ProofError."""
    for path, copy in copies.items():
        pulled = clone / path
        if not pulled.is_file() or not filecmp.cmp(pulled, copy, shallow=False):
            what = f"dvc pull at {history.head.name} brings other bytes to {path} than the object's"
            raise ProofError(what, s3.RESTORE)


def check_trailers(version: Version) -> None:
    """Check that the commit's trailers agree with its pointer."""
    said = version.trailers.get("Data-Md5"), version.trailers.get("Data-Size")
    if "Data-Path" in version.trailers and said != (version.md5, str(version.size)):
        raise ProofError(
            f"{version.commit} says Data-Md5 {said[0]} and Data-Size {said[1]}, "
            f"its pointer {version.md5} and {version.size}",
            "the commit was edited by hand: choose another one",
        )


def check_runs(lab: Access, versions: Iterable[Version]) -> None:
    """Check each run that made any of these versions, once. Raises ProofError."""
    made = [version for version in versions if find_maker(version) == "run"]
    for version in {version.commit: version for version in made}.values():
        check_run(lab, version)


def check_run(lab: Access, version: Version) -> None:
    """Check that Airflow ran the commit's run at the DAG version that the commit names.

    A run that Airflow has forgotten (its database was cleaned) proves nothing either way.
    """
    run_id, dag_id = version.trailers.get("Run-Id"), version.trailers.get("Dag-Id")
    if not run_id or not dag_id:
        return
    run = runs.find_run(lab, dag_id, run_id)
    if run and run.dag_version and run.dag_version != version.trailers.get("Dag-Version"):
        raise ProofError(
            f"{version.commit} names DAG version {version.trailers.get('Dag-Version')}, "
            f"Airflow ran {run_id} at {run.dag_version}",
            "look at the run in the UI",
        )


# --- Lineage --------------------------------------------------------------------------------------


def check_lineage(history: History) -> None:
    """Check that each version names one that it was made from, and is its run's only one.

    A commit that git has copied (by a cherry-pick, by a rebase) says of the data what its original
    says: one of them has to be right, and together they are one commit of the run.
    """
    copies: dict[tuple[str | None, ...], list[Version]] = {}
    for version in history.versions:
        said = version.trailers if find_maker(version) == "run" else {}
        run = said.get("Dag-Id"), said.get("Run-Id"), find_parent(version)
        author = history.commits[version.commit].author
        copies.setdefault((*run, author, version.md5), []).append(version)
    for same in copies.values():
        if not any(has_true_parent(history, version) for version in same):
            raise parent_error(history, same[0])
    made = Counter((dag, run) for dag, run, *_ in copies if run)
    if twice := sorted(run for (_, run), count in made.items() if count > 1):
        raise ProofError(f"more than one commit of run {twice[0]}", "report this: it is a bug")


def find_parent(version: Version) -> str | None:
    """Return the MD5 of the version that this one was made from, if its commit says so."""
    return version.trailers.get("Data-Parent") if "Data-Path" in version.trailers else None


def has_true_parent(history: History, version: Version) -> bool:
    """Return whether a version names one that it was made from, if it names any and there is any.

    A history may begin with a version whose parent is in the history of another repository.
    """
    origins = history.origins[version.commit]
    return not origins or find_parent(version) in {None, *origins}


def parent_error(history: History, version: Version) -> ProofError:
    before = " or ".join(sorted(history.origins[version.commit]))
    return ProofError(
        f"{version.commit} names parent {find_parent(version)}, the version before it is {before}",
        "the history was edited: look at it with git log",
    )


def check_sources(history: History, histories: Mapping[str, History]) -> None:
    """Check that the versions which runs have read are those that their commits have.

    Of a commit that is not in this history, or of data that is not proved here, nobody can say.
    """
    pointers = {each.path.removesuffix(POINTER): each.pointers for each in histories.values()}
    for version in history.versions:
        for source in version.sources:
            pointer = pointers.get(source.path, {}).get(source.commit)
            # DVC 2 wrote another hash than that of the bytes, and named no kind.
            if pointer and "hash:" in pointer.text and pointer.md5 != source.md5:
                raise ProofError(
                    f"{version.commit} says that its run read {source.path} with MD5 {source.md5} "
                    f"at {source.commit}, whose pointer says {pointer.md5}",
                    "the commit was edited by hand: choose another one",
                )
