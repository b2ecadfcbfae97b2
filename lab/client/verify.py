"""The proof: commit, pointer, object, bytes, run and lineage.

Nothing here trusts the pipeline: it uses none of the steps' code, reads the bucket itself, and lets
the `dvc` command line pull the dataset in a clone of its own.
"""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lab.client import data, dvc_process, runs, s3, versions
from lab.client.data import Data
from lab.client.git import run_git
from lab.client.history import History
from lab.client.objects import Bucket
from lab.errors import ProofError
from lab.model import Access, Proof, Version


def prove_commit(lab: Access, commit: str) -> Proof:
    """Prove that `commit` (`main` is the newest one) reproduces its dataset.

    Raises CommitError and ProofError.
    """
    with versions.temporary_clone(lab) as clone:
        history, bucket = versions.read_graph(lab, clone, commit), Bucket(lab)
        newest, older = history.version, history.versions[1:]
        run_git(lab, "checkout", "--quiet", history.head.name, cwd=clone)
        with dvc_process.pulling(lab, clone, lab.dataset_path) as finish:
            located = data.locate_versions(lab, clone, history)
            found = data.open_data(bucket, newest, *located[newest.commit][0])
            copies = data.fetch_data(lab, clone, bucket, found, clone.parent / "objects")
            finish()
        check_pulled(clone, history, copies)
        check_trailers(newest)
        check_run(lab, newest)
        check_lineage(history)
        data.check_older(lab, clone, bucket, [(each, located[each.commit]) for each in older])
        return build_proof(found, copies, older)


def build_proof(found: Data, copies: Mapping[str, Path], older: list[Version]) -> Proof:
    newest = found.version
    return Proof(
        ok=True,
        commit=newest.commit,
        md5=newest.md5,
        size=sum(copy.stat().st_size for copy in copies.values()),
        object=found.name_object().url,
        run_id=newest.trailers.get("Run-Id"),
        dag_version=newest.trailers.get("Dag-Version"),
        parents_checked=len(older),
        made_by=find_maker(newest),
    )


def find_maker(version: Version) -> str:
    """Return what made a version: the import writes trailers, but no run's."""
    if "Run-Id" in version.trailers:
        return "run"
    return "import" if "Data-Md5" in version.trailers else "hand"


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
    if "Data-Md5" in version.trailers and said != (version.md5, str(version.size)):
        raise ProofError(
            f"{version.commit} says Data-Md5 {said[0]} and Data-Size {said[1]}, "
            f"its pointer {version.md5} and {version.size}",
            "the commit was edited by hand: choose another one",
        )


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
        said = (version.trailers.get(key) for key in ("Dag-Id", "Run-Id", "Data-Parent"))
        author = history.commits[version.commit].author
        copies.setdefault((*said, author, version.md5), []).append(version)
    for same in copies.values():
        if not any(has_true_parent(history, version) for version in same):
            raise parent_error(history, same[0])
    made = Counter((dag, run) for dag, run, *_ in copies if run)
    if twice := sorted(run for (_, run), count in made.items() if count > 1):
        raise ProofError(f"more than one commit of run {twice[0]}", "report this: it is a bug")


def has_true_parent(history: History, version: Version) -> bool:
    """Return whether a version names one that it was made from, if it names any and there is any.

    A history may begin with a version whose parent is in the history of another repository.
    """
    origins = history.origins[version.commit]
    return not origins or version.trailers.get("Data-Parent") in {None, *origins}


def parent_error(history: History, version: Version) -> ProofError:
    before = " or ".join(sorted(history.origins[version.commit]))
    return ProofError(
        f"{version.commit} names parent {version.trailers['Data-Parent']}, "
        f"the version before it is {before}",
        "the history was edited: look at it with git log",
    )
