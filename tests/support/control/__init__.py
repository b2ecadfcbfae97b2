"""Fault injection: what tests do to a lab that a person would not. One module per backend.

processes   an embedded lab: its services and steps are processes of this machine
pods        a lab on kind: its services and steps are pods
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lab.config import Config
from lab.model import Run


class Control(Protocol):
    """What tests do to a running lab; each backend has a class for it."""

    @property
    def config(self) -> Config:
        """The choices of the lab."""

    def list_services(self) -> list[str]:
        """Return the services that can be killed."""

    def list_stores(self) -> tuple[str, str]:
        """Return the git server and the S3 server, by the names that `list_services` has."""

    def list_parts(self) -> list[str]:
        """Return what can be killed one by one now: steps, and workers of the services."""

    def kill(self, name: str) -> None:
        """Kill that service or part without a warning, as by a crash."""

    def cut_power(self) -> None:
        """End everything at once, as by a power cut."""

    def restore(self) -> None:
        """Start what has ended, and wait until each service answers."""

    def list_kept(self, run: Run) -> list[str]:
        """Return what a run's steps ran in and left for reading, by name."""

    def list_secrets(self) -> list[str]:
        """Return every password, token and key of the lab."""

    def read_traces(self) -> Iterator[tuple[str, bytes]]:
        """Yield all that the lab writes down or shows, by name: no secret may be in it."""


def control_of(config: Config) -> Control:
    """Return the control of the lab that these choices made."""
    from tests.support.control.pods import Pods
    from tests.support.control.processes import Processes

    return Pods(config) if config.backend == "kind" else Processes(config)
