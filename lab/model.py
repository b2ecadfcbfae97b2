"""A service, and a running lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Port:
    """One listening socket: what it is for and what keeps strangers out."""

    name: str
    number: int
    protection: str


@dataclass(frozen=True)
class Service:
    """One thing that runs on this machine.

    `ready` returns when the service answers and raises NotYet or OSError when it does not yet;
    `prepare` leaves what the process needs in place and clears what a killed one left.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    ready: Callable[[], object]
    ports: tuple[Port, ...] = ()
    prepare: Callable[[], object] = field(default=lambda: None)


class Control(Protocol):
    """What a backend lets tests do to a running lab, the same on every backend."""

    def services(self) -> list[str]:
        """The services that can be killed."""

    def parts(self) -> list[str]:
        """What can be killed one by one at this moment: steps, and workers of the services."""

    def kill(self, name: str) -> None:
        """That service or part is killed without a warning, as by a crash."""

    def restore(self) -> None:
        """Every service answers again."""

    def secrets(self) -> list[str]:
        """Every password, token and key of the lab."""

    def traces(self) -> Iterator[tuple[str, bytes]]:
        """Everything that the lab writes down or shows, by name: no secret may be in it."""


@dataclass(frozen=True)
class Version:
    """One version of the dataset: the commit that names it, and what its pointer says."""

    commit: str
    md5: str
    size: int  # bytes
    trailers: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """One run of a DAG, as Airflow knew it when asked."""

    id: str
    dag_id: str
    state: str
    dag_version: str | None  # the commit of the pipelines' repository that it runs


@dataclass(frozen=True)
class Proof:
    """What was proved of one data commit."""

    ok: bool
    commit: str
    md5: str
    size: int  # bytes
    object: str
    run_id: str | None
    dag_version: str | None
    parents_checked: int


@dataclass(frozen=True)
class Checkout:
    """One commit of the datasets repository, checked out, its datasets pulled."""

    folder: Path

    def read(self, path: str) -> bytes:
        """The bytes of a file of that commit, pulled by DVC where it is a dataset."""
        return (self.folder / path).read_bytes()


@dataclass(frozen=True)
class Lab:
    """A running lab: where its servers are, and how to be let in. Tests touch nothing else."""

    backend: str
    git_url: str
    git_user: str
    git_password: str = field(repr=False)
    s3_endpoint: str
    s3_bucket: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    dataset_path: str
    airflow_url: str
    airflow_user: str
    airflow_password: str = field(repr=False)
    control: Control = field(repr=False, compare=False, metadata={"private": True})

    def env(self) -> dict[str, str]:
        """Everything that another program needs, under the same keys on every backend."""
        shown = (f.name for f in fields(self) if not f.metadata.get("private"))
        return {name: getattr(self, name) for name in shown}

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """A run that Airflow has accepted. Raises DagError and ConfError."""
        from lab import runs

        return runs.trigger(self, dag_id, conf or {})

    def follow(self, run: Run, timeout: float = 600) -> Run:
        """The run, ended. Raises RunError when it did not succeed in `timeout` seconds."""
        from lab import runs

        return runs.follow(self, run, timeout)

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None, timeout: float = 600) -> Run:
        """A run of `dag_id` that succeeded. Raises DagError, ConfError and RunError."""
        return self.follow(self.trigger(dag_id, conf), timeout)

    def log(self, run: Run, task_id: str) -> str:
        """What the last attempt of a task has printed, as Airflow's API shows it."""
        from lab import runs

        return runs.log(self, run, task_id)

    def dataset(self, commit: str = "main") -> Version:
        """The version of the dataset at a commit. Raises CommitError."""
        return self.history(commit)[0]

    def history(self, commit: str = "main") -> list[Version]:
        """All versions up to a commit, the newest first. Raises CommitError."""
        from lab import versions

        return versions.history(self, commit)

    def checkout(self, commit: str) -> AbstractContextManager[Checkout]:
        """That commit in a fresh clone, its dataset pulled. Raises CommitError, ProofError."""
        from lab import versions

        return versions.checkout(self, commit)

    def verify(self, commit: str = "main") -> Proof:
        """The proof that a commit reproduces its dataset. Raises CommitError and ProofError."""
        from lab import verify

        return verify.prove(self, commit)
