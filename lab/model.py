"""The kit's data types: a service, a lab's addresses, a run, a version of the data, a proof."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path

from lab.data_sets import DATASET

ENDED = {"success", "failed"}  # the states of a run or a task that nothing changes any more


@dataclass(frozen=True)
class Port:
    """One listening socket: what it is for and what protects it."""

    name: str
    number: int
    protection: str


@dataclass(frozen=True)
class Service:
    """One service that runs as a process of this machine.

    `ready` returns when the service answers and raises NotYet or OSError until it does;
    `prepare` creates what the process needs and removes what a killed one left; `code` computes a
    digest of the modules that it imports.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    ready: Callable[[], object]
    ports: tuple[Port, ...] = ()
    prepare: Callable[[], object] = field(default=lambda: None)
    code: Callable[[], str] = field(default=lambda: "")


@dataclass(frozen=True)
class Source:
    """A version that a run read and did not change, as its commit names it."""

    path: str
    commit: str
    md5: str


@dataclass(frozen=True)
class Version:
    """One version of a data set: its commit, and what the pointer says there.

    Of the commit's trailers, it has those of the run and those about this data set.
    """

    commit: str
    md5: str  # a directory's ends in .dir
    size: int | None  # bytes; None where an old DVC wrote the pointer
    trailers: Mapping[str, str]
    files: int | None = None  # of a directory, where the pointer says it
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set, and the version that a commit has of it, or why it has none."""

    name: str
    path: str
    version: Version | None
    error: str | None = None


@dataclass(frozen=True)
class Model:
    """One version of the model: its commit, and what that commit says of it."""

    commit: str
    data_commit: str | None  # the commit of the dataset that it was trained on
    md5: str
    size: int | None  # bytes
    metrics: Mapping[str, float]
    trailers: Mapping[str, str]


@dataclass(frozen=True)
class Dag:
    """A DAG that can be run, as Airflow knows it."""

    id: str
    bundle: str
    paused: bool  # its runs wait


@dataclass(frozen=True)
class BrokenFile:
    """A DAG file that can't be parsed."""

    bundle: str
    file: str  # in its bundle
    why: str  # a traceback

    def __str__(self) -> str:
        lines = self.why.strip().splitlines() or ["nobody knows why"]
        numbers = re.findall(rf'{re.escape(self.file)}", line (\d+)', self.why)
        place = ":".join((self.file, *numbers[-1:]))
        return f"{self.bundle}: {place} can't be parsed: {lines[-1].strip()}"


@dataclass(frozen=True)
class Run:
    """One run of a DAG, as Airflow reported it when asked."""

    id: str
    dag_id: str
    state: str
    dag_version: str | None  # the commit of the pipelines' repository that it runs

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, in success or in failure."""
        return self.state in ENDED


@dataclass(frozen=True)
class Outcome:
    """The outcome of one task of a run; a task that has not begun has no times."""

    state: str | None
    attempts: int
    began: datetime | None
    ended: datetime | None


@dataclass(frozen=True)
class DataProof:
    """What was proved of one data set of a commit."""

    name: str  # its path, where no name is declared
    path: str
    commit: str  # that made this version
    md5: str
    size: int  # bytes
    object: str
    files: int | None  # of a directory
    run_id: str | None
    dag_version: str | None
    parents_checked: int
    made_by: str  # "run", "import" or "hand"


@dataclass(frozen=True)
class Proof:
    """What was proved of one data commit.

    All but `data` is of the dataset; of the commit's first data set, where it has no dataset.
    """

    ok: bool
    commit: str
    md5: str
    size: int  # bytes
    object: str
    run_id: str | None
    dag_version: str | None
    parents_checked: int
    made_by: str = "run"  # or "import", or "hand"
    data: tuple[DataProof, ...] = ()


@dataclass(frozen=True)
class Checkout:
    """One commit of the datasets repository, checked out, with the requested files pulled."""

    folder: Path

    def read(self, path: str) -> bytes:
        """Return the bytes of a file of that commit, or of one that DVC pulled."""
        return (self.folder / path).read_bytes()


@dataclass(frozen=True)
class Access:
    """The addresses of a lab's servers, and the credentials for them."""

    backend: str
    git_url: str
    git_user: str
    git_password: str = field(repr=False)
    git_page: str  # the web page with the commits of the datasets
    s3_endpoint: str
    s3_region: str
    s3_bucket: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    s3_session_token: str = field(repr=False)  # of temporary AWS keys; else empty
    dataset_path: str
    airflow_url: str
    airflow_user: str
    airflow_password: str = field(repr=False)
    dataset_name: str = DATASET  # of the main data set
    data_sets: Mapping[str, str] = field(default_factory=dict)  # paths of the others, by name

    @property
    def data_paths(self) -> dict[str, str]:
        """The path of each data set that the project declares, by name; the main one's first."""
        return {self.dataset_name: self.dataset_path, **self.data_sets}

    def env(self) -> dict[str, str]:
        """Return all that another program needs, under the same keys on every backend."""
        names = (f.name for f in fields(Access) if f.name != "data_sets")  # no text
        return {name: getattr(self, name) for name in names}
