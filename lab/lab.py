"""A running lab."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.client import clones, git, runs, s3, verify, versions
from lab.layout import STORE
from lab.model import Access, BrokenFile, Checkout, DataSet, Model, Outcome, Proof, Run, Version

if TYPE_CHECKING:
    from airflow_client.client import ApiClient


@dataclass(frozen=True)
class Lab(Access):
    """A running lab, and all that can be done with it. Tests use nothing else."""

    # --- Airflow: DAGs, runs, events ------------------------------------------------------------

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, unpause: bool = False
    ) -> Run:
        """Start a run; return it once Airflow has accepted it. Raises DagError and ConfError.

        A paused DAG is refused, or unpaused with `unpause`.
        """
        return runs.trigger(self, dag_id, conf or {}, unpause=unpause)

    def follow(self, run: Run, timeout: float = 600) -> Run:
        """Wait until the run has succeeded, and return it.

        Raises RunError when it did not succeed in `timeout` seconds.
        """
        return runs.follow(self, run, timeout)

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None, timeout: float = 600) -> Run:
        """Start a run of `dag_id`, wait until it has succeeded, and return it.

        Raises DagError, ConfError and RunError.
        """
        return self.follow(self.trigger(dag_id, conf), timeout)

    def log(self, run: Run, task_id: str) -> str:
        """Return what the last attempt of a task has printed, as Airflow's API shows it."""
        return runs.read_log(self, run, task_id)

    def runs_of(self, dag_id: str) -> list[Run]:
        """List the DAG's newest runs, the newest first."""
        return runs.list_runs(self, dag_id)

    def outcomes(self, run: Run) -> dict[str, Outcome]:
        """Return the outcome of each task of a run, by task id."""
        return runs.read_outcomes(self, run)

    def xcom(self, run: Run, task_id: str) -> Any:
        """Return the XCom that a task returned to the tasks after it."""
        return runs.read_xcom(self, run, task_id)

    def events(self, asset: str) -> list[dict[str, Any]]:
        """List the `extra` of each event of an asset, the oldest first."""
        return runs.list_events(self, asset)

    def find_run(self, dag_id: str, run_id: str) -> Run | None:
        """Return the run of that id as Airflow knows it now, or None."""
        return runs.find_run(self, dag_id, run_id)

    def asset_events(self, asset: str) -> list[Any]:
        """List Airflow's own records of an asset's events, the oldest first."""
        return runs.list_asset_events(self, asset)

    def dags(self) -> dict[str, list[str]]:
        """List the ids of the DAGs that can be run, by bundle."""
        return runs.dags_by_bundle(self)

    def dag_version(self, dag_id: str) -> str | None:
        """Return the commit that a new run of the DAG would use, or None without such a DAG."""
        return runs.find_dag_version(self, dag_id)

    def broken_files(self) -> list[BrokenFile]:
        """List the DAG files that Airflow can't parse."""
        return runs.list_broken_files(self)

    def wait_for_dag(self, dag_id: str, commit: str, timeout: float = 180) -> None:
        """Wait until Airflow has parsed the DAG at a commit. Raises ServiceError and DagError."""
        runs.wait_for_dag(self, dag_id, commit, timeout)

    def airflow(self) -> AbstractContextManager[ApiClient]:
        """Yield an authenticated client of Airflow's REST API. Raises AccessError, ServiceError."""
        return runs.api_client(self)

    # --- Versions of the data ---------------------------------------------------------------------

    def dataset(self, commit: str = "main") -> Version:
        """Return the version of the main data set at a commit. Raises CommitError."""
        return versions.read_version(self, commit)

    def version(self, name: str | None = None, commit: str = "main") -> Version:
        """Return the version of a data set at a commit: of the main one without a name.

        Raises CommitError.
        """
        return versions.read_version(self, commit, name)

    def history(self, commit: str = "main", *, name: str | None = None) -> list[Version]:
        """List a data set's version at a commit, then all others up to it, the newest first.

        Raises CommitError when there are none.
        """
        return versions.read_history(self, commit, name)

    def list_data_sets(self, commit: str = "main") -> list[DataSet]:
        """List the data sets of a commit, and those that are declared and have no version there."""
        return versions.list_data_sets(self, commit)

    def model(self, commit: str = "main") -> Model:
        """Return the version of the model at a commit. Raises CommitError."""
        return versions.read_model(self, commit)

    def checkout(self, commit: str, *paths: str) -> AbstractContextManager[Checkout]:
        """Check the commit out in a fresh clone, and pull its dataset or these of its paths.

        Raises CommitError and ProofError.
        """
        return versions.temporary_checkout(self, commit, *paths)

    def data(self, name: str, commit: str = "main") -> Path:
        """Return the path of a data set's file or directory at a commit, as `dvc pull` brings it.

        It is in a clone that is there until the process ends. Raises CommitError and ProofError.
        """
        return clones.fetch_data(self, name, commit)

    def verify(self, commit: str = "main", data: str | None = None) -> Proof:
        """Prove that a commit reproduces its data sets, or the one of this name or path.

        Raises CommitError and ProofError.
        """
        return verify.prove_commit(self, commit, data)

    # --- The git server and the bucket ------------------------------------------------------------

    def git(self, *arguments: str | Path, cwd: Path) -> str:
        """Run git as the lab's owner and return its output. Raises AccessError and LabError."""
        return git.run_git(self, *arguments, cwd=cwd)

    def repository_url(self, repository: str = "datasets") -> str:
        """Return the address of one of the lab's repositories: pipelines, datasets or team-a."""
        return self.git_url.replace("datasets.git", f"{repository}.git")

    def clone(self, repository: str = "datasets") -> AbstractContextManager[Path]:
        """Yield a fresh clone of a repository in a temporary folder, and delete it afterwards."""
        return versions.temporary_clone(self, self.repository_url(repository))

    def object_key(self, md5: str) -> str:
        """Return the key under which the lab's own remote keeps the bytes of this MD5.

        DVC is not asked: a commit whose configuration names another remote has its data there.
        """
        return versions.object_key(STORE, md5)

    def read_object(self, key: str) -> bytes:
        """Return an object's bytes. Raises ProofError when the bucket has no such object."""
        return s3.read_object(self, key)

    def list_objects(self, prefix: str) -> list[dict[str, Any]]:
        """List S3's entry (Key, ETag, Size, …) of each object under a prefix, by key."""
        return s3.list_objects(self, prefix)

    def put_object(self, key: str, content: bytes) -> None:
        """Write an object."""
        s3.put_object(self, key, content)

    def delete_object(self, key: str) -> None:
        """Delete an object if it exists."""
        s3.delete_object(self, key)
