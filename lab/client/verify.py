"""The proof: commit, pointer, object, bytes, run and lineage.

Nothing here trusts the pipeline: it uses none of the steps' code, reads the bucket itself, and lets
the `dvc` command line bring the dataset back in a clone of its own.
"""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.client import runs, s3, versions
from lab.client.git import git
from lab.errors import ProofError
from lab.model import Access, Proof, Version

BLOCK = 1 << 20  # bytes


def prove(lab: Access, commit: str) -> Proof:
    """What `commit` (or the newest one, for `main`) reproduces. Raises CommitError, ProofError."""
    with versions.clone(lab) as folder:
        name = versions.resolve(lab, folder, commit)
        line = versions.versions(lab, folder, name)
        bucket, prefix = versions.remote_of(lab, folder, name)
        newest = line[0]
        key = versions.object_key(prefix, newest)
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
    """The object has the pointer's hash and size, and `dvc pull` brings those very bytes."""
    copy = folder.parent / "object"
    md5 = download(lab, bucket, key, copy)
    size = copy.stat().st_size
    if (md5, size) != (version.md5, version.size):
        raise ProofError(
            f"s3://{bucket}/{key} holds {size} bytes with MD5 {md5}; "
            f"the pointer at {version.commit} says {version.size} and {version.md5}",
            s3.RESTORE,
        )
    git(lab, "checkout", "--quiet", commit, cwd=folder)
    versions.dvc_pull(lab, folder)
    if not filecmp.cmp(folder / lab.dataset_path, copy, shallow=False):
        raise ProofError(f"dvc pull at {commit} brings other bytes than the object's", s3.RESTORE)


def download(lab: Access, bucket: str, key: str, into: Path) -> str:
    """The MD5 of the object, whose bytes are in `into` afterwards. Raises ProofError."""
    with s3.answers_known(f"object s3://{bucket}/{key}"), into.open("wb") as file:
        return md5_of(s3.client(lab), bucket, key, file.write)


def md5_of(client: Any, bucket: str, key: str, take: Callable[[bytes], object]) -> str:
    """The MD5 of the bytes that the server sends; `take` has had each block of them."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(BLOCK):
        digest.update(block)
        take(block)
    return digest.hexdigest()


def check_trailers(version: Version) -> None:
    """The commit's own words agree with its pointer."""
    said = version.trailers.get("Data-Md5"), version.trailers.get("Data-Size")
    if "Data-Md5" in version.trailers and said != (version.md5, str(version.size)):
        raise ProofError(
            f"{version.commit} says Data-Md5 {said[0]} and Data-Size {said[1]}, "
            f"its pointer {version.md5} and {version.size}",
            "the commit was edited by hand: choose another one",
        )


def check_run(lab: Access, version: Version) -> None:
    """Airflow knows the run that the commit names, at the DAG version that it names.

    A run that Airflow has forgotten (its database was cleaned) proves nothing either way.
    """
    run_id, dag_id = version.trailers.get("Run-Id"), version.trailers.get("Dag-Id")
    if not run_id or not dag_id:
        return
    run = runs.find(lab, dag_id, run_id)
    if run and run.dag_version and run.dag_version != version.trailers.get("Dag-Version"):
        raise ProofError(
            f"{version.commit} names DAG version {version.trailers.get('Dag-Version')}, "
            f"Airflow ran {run_id} at {run.dag_version}",
            "look at the run in the UI",
        )


def check_lineage(lab: Access, line: list[Version], bucket: str, prefix: str) -> None:
    """Each version names its parent, each run made one version, each object is in the bucket."""
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
    client = s3.client(lab)
    for version in line[1:]:
        check_object(client, version, bucket, versions.object_key(prefix, version))


def check_object(client: Any, version: Version, bucket: str, key: str) -> None:
    """The server says that it holds the bytes; where its word is no MD5, they are hashed."""
    where = f"object s3://{bucket}/{key} of commit {version.commit}"
    with s3.answers_known(where):
        head = client.head_object(Bucket=bucket, Key=key)
        tag = head["ETag"].strip('"')
        if "-" in tag:
            tag = md5_of(client, bucket, key, take=len)
    if (tag, head["ContentLength"]) != (version.md5, version.size):
        raise ProofError(f"the {where} has MD5 {tag} and {head['ContentLength']} bytes", s3.RESTORE)
