"""The proof: commit, pointer, object, bytes, run and lineage.

Nothing here trusts the pipeline: it uses none of the steps' code, reads the bucket itself, and lets
the `dvc` command line pull the dataset in a clone of its own.
"""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.client import runs, s3, versions
from lab.client.git import run_git
from lab.errors import ProofError
from lab.model import Access, Proof, Version

BLOCK = 1 << 20  # bytes


def prove_commit(lab: Access, commit: str) -> Proof:
    """Prove that `commit` (`main` is the newest one) reproduces its dataset.

    Raises CommitError and ProofError.
    """
    with versions.temporary_clone(lab) as folder:
        name = versions.resolve_commit(lab, folder, commit)
        line = versions.list_versions(lab, folder, name)
        bucket, prefix = versions.read_remote(lab, folder, name)
        newest = line[0]
        key = versions.object_key(prefix, newest.md5)
        check_bytes(lab, folder, name, newest, bucket, key)
        check_trailers(newest)
        check_run(lab, newest)
        check_lineage(lab, line, bucket, prefix)
        return Proof(
            ok=True,
            commit=newest.commit,
            md5=newest.md5,
            size=newest.size,
            object=f"s3://{bucket}/{key}",
            run_id=newest.trailers.get("Run-Id"),
            dag_version=newest.trailers.get("Dag-Version"),
            parents_checked=len(line) - 1,
        )


def check_bytes(
    lab: Access, folder: Path, commit: str, version: Version, bucket: str, key: str
) -> None:
    """Check that the object has the pointer's hash and size, and `dvc pull` brings its bytes."""
    copy = folder.parent / "object"
    md5 = download_object(lab, bucket, key, copy)
    size = copy.stat().st_size
    if (md5, size) != (version.md5, version.size):
        raise ProofError(
            f"s3://{bucket}/{key} holds {size} bytes with MD5 {md5}; "
            f"the pointer at {version.commit} says {version.size} and {version.md5}",
            s3.RESTORE,
        )
    run_git(lab, "checkout", "--quiet", commit, cwd=folder)
    versions.dvc_pull(lab, folder)
    if not filecmp.cmp(folder / lab.dataset_path, copy, shallow=False):
        raise ProofError(f"dvc pull at {commit} brings other bytes than the object's", s3.RESTORE)


def download_object(lab: Access, bucket: str, key: str, into: Path) -> str:
    """Download the object to `into` and return its MD5. Raises ProofError."""
    with s3.translating_errors(f"object s3://{bucket}/{key}"), into.open("wb") as file:
        return hash_object(s3.create_client(lab), bucket, key, file.write)


def hash_object(client: Any, bucket: str, key: str, take: Callable[[bytes], object]) -> str:
    """Return the MD5 of the bytes that the server sends; pass each block of them to `take`."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(BLOCK):
        digest.update(block)
        take(block)
    return digest.hexdigest()


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


def check_lineage(lab: Access, line: list[Version], bucket: str, prefix: str) -> None:
    """Check that each version names its parent and is its run's only one, and has its object."""
    for child, parent in pairwise(line):
        if child.trailers.get("Data-Parent", parent.md5) != parent.md5:
            raise ProofError(
                f"{child.commit} names parent {child.trailers['Data-Parent']}, "
                f"the version before it is {parent.md5}",
                "the history was edited: look at it with git log",
            )
    made_by = [
        (v.trailers.get("Dag-Id"), v.trailers["Run-Id"]) for v in line if "Run-Id" in v.trailers
    ]
    if twice := {run for run in made_by if made_by.count(run) > 1}:
        raise ProofError(f"more than one commit of run {min(twice)}", "report this: it is a bug")
    client = s3.create_client(lab)
    for version in line[1:]:
        check_object(client, version, bucket, versions.object_key(prefix, version.md5))


def check_object(client: Any, version: Version, bucket: str, key: str) -> None:
    """Check that the server holds the bytes: by its ETag, or by a hash where that is no MD5."""
    where = f"object s3://{bucket}/{key} of commit {version.commit}"
    with s3.translating_errors(where):
        head = client.head_object(Bucket=bucket, Key=key)
        tag = head["ETag"].strip('"')
        if "-" in tag:
            tag = hash_object(client, bucket, key, take=len)
    if (tag, head["ContentLength"]) != (version.md5, version.size):
        raise ProofError(f"the {where} has MD5 {tag} and {head['ContentLength']} bytes", s3.RESTORE)
