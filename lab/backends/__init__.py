"""Where a lab can run.

embedded/, kind/   one package each; its `backend` is the module that satisfies `Backend`
choices            what a later command may not change
doctor             what any lab needs of this machine
phases             what is done alike on every backend
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lab.config import Config
from lab.errors import BackendError, LabError
from lab.home import state

if TYPE_CHECKING:
    from lab.backends.doctor import Finding
    from lab.lab import Lab
    from lab.model import Service
    from lab.progress import Report

NAMES = ("embedded", "kind")


class Backend(Protocol):
    """What a module must offer to be a backend. Each function takes the choices of one lab."""

    NAME: str

    def check(self, config: Config) -> None:
        """Raise the LabError of the first thing that keeps a lab from running; change nothing."""

    def diagnose(self, config: Config) -> list[Finding]:
        """Return what this machine has and lacks for a lab."""

    def examine(self, config: Config) -> list[Finding]:
        """Return what is found about how a running lab's tasks get access to S3."""

    def up(self, config: Config, report: Report = ...) -> Lab:
        """Bring a whole lab up; leave alone what runs already, and add what is missing."""

    def start(self, config: Config, report: Report = ...) -> Lab:
        """Bring up what the project's own DAG needs, and no more than that."""

    def complete(self, config: Config, report: Report = ...) -> None:
        """Bring what `start` has left out of a whole lab."""

    def connect(self, config: Config) -> Lab:
        """Return the running lab. Raise NotRunningError, naming what does not run."""

    def restore(self, config: Config) -> None:
        """Start again what has ended of a lab that was up, and wait until each service answers."""

    def list_services(self, config: Config) -> list[tuple[Service, bool]]:
        """Return each service, and whether it runs."""

    def undeclared_ports(self, config: Config) -> list[int]:
        """Return the ports on which the lab listens though no service names them."""

    def log_files(self, config: Config) -> dict[str, Path]:
        """Return a file per service that holds its log as it is now."""

    def follow_commands(self, config: Config, wanted: list[str]) -> list[list[str | Path]]:
        """Return the commands that print the logs of these services as they grow."""

    def collect_evidence(self, config: Config, folder: Path) -> None:
        """Write what tells why a lab failed into `folder`."""

    def down(self, config: Config, *, purge: bool = False) -> int:
        """End the lab, with `purge` its data too; return how many processes and nodes ended."""

    def remove_leftovers(self, config: Config) -> None:
        """Delete what is left outside of a home that has no state: nothing else tells of it."""


def load_backends() -> dict[str, Backend]:
    """Return each backend by its name.

    They are imported here because parts of a running lab (its git server, Airflow's executor) are
    in these packages too, and must not wait for all of them.
    """
    from lab.backends.embedded import backend as embedded
    from lab.backends.kind import backend as kind

    return {embedded.NAME: embedded, kind.NAME: kind}


def find_backend(name: str) -> Backend:
    """Return the backend of that name. Raise BackendError when there is none."""
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}", f"choose auto, {', '.join(NAMES)}")
    return load_backends()[name]


def choose_backend(config: Config) -> tuple[Backend, str]:
    """Return the backend that the config asks for, and why that one. Raise BackendError."""
    if config.backend != "auto":
        return find_backend(config.backend), "asked for"
    if known := state.read_state(config):
        return find_backend(known.backend), "this lab was made so"
    embedded, kind = find_backend("embedded"), find_backend("kind")
    if config.database == "sqlite":
        return embedded, "--database sqlite"
    from lab.cluster.docker import EMBEDDED

    try:
        kind.check(config)
    except LabError as error:
        return embedded, f"no kind: {error.what}; for kind: {error.fix.removesuffix(EMBEDDED)}"
    return kind, "Docker answers, and there is room"
