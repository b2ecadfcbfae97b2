"""A running lab."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lab.client import runs, verify, versions
from lab.model import Access, Checkout, Model, Outcome, Proof, Run, Version


@dataclass(frozen=True)
class Lab(Access):
    """A running lab: what its access allows to do. Tests touch nothing else."""

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """A run that Airflow has accepted. Raises DagError and ConfError."""
        return runs.trigger(self, dag_id, conf or {})

    def follow(self, run: Run, timeout: float = 600) -> Run:
        """The run, ended. Raises RunError when it did not succeed in `timeout` seconds."""
        return runs.follow(self, run, timeout)

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None, timeout: float = 600) -> Run:
        """A run of `dag_id` that succeeded. Raises DagError, ConfError and RunError."""
        return self.follow(self.trigger(dag_id, conf), timeout)

    def log(self, run: Run, task_id: str) -> str:
        """What the last attempt of a task has printed, as Airflow's API shows it."""
        return runs.log(self, run, task_id)

    def runs_of(self, dag_id: str) -> list[Run]:
        """The DAG's newest runs, the newest first."""
        return runs.runs_of(self, dag_id)

    def outcomes(self, run: Run) -> dict[str, Outcome]:
        """What has become of each task of a run, by the task's id."""
        return runs.outcomes(self, run)

    def xcom(self, run: Run, task_id: str) -> Any:
        """What a task has returned to the tasks after it."""
        return runs.xcom(self, run, task_id)

    def events(self, asset: str) -> list[dict[str, Any]]:
        """What each event of an asset says, the oldest first."""
        return runs.events(self, asset)

    def dataset(self, commit: str = "main") -> Version:
        """The version of the dataset at a commit. Raises CommitError."""
        return self.history(commit)[0]

    def history(self, commit: str = "main") -> list[Version]:
        """All versions up to a commit, the newest first. Raises CommitError."""
        return versions.history(self, commit)

    def model(self, commit: str = "main") -> Model:
        """The version of the model at a commit. Raises CommitError."""
        return versions.model(self, commit)

    def checkout(self, commit: str, *paths: str) -> AbstractContextManager[Checkout]:
        """That commit in a fresh clone, its dataset or these of its paths pulled.

        Raises CommitError and ProofError.
        """
        return versions.checkout(self, commit, *paths)

    def verify(self, commit: str = "main") -> Proof:
        """The proof that a commit reproduces its dataset. Raises CommitError and ProofError."""
        return verify.prove(self, commit)
