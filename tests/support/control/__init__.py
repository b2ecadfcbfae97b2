"""Fault injection: how tests kill parts of a lab. One module per backend.

processes   an embedded lab: its services and steps are processes of this machine
pods        a lab on kind: its services and steps are pods
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lab.config import Config
from lab.model import Run


class Control(Protocol):
    """Fault injection for a running lab; each backend has a class for it."""

    @property
    def config(self) -> Config:
        """The lab's configuration."""

    def list_services(self) -> list[str]:
        """Return the services that can be killed."""

    def list_stores(self) -> tuple[str, str]:
        """Return the names of the git server and the S3 server, as `list_services` has them."""

    def list_parts(self) -> list[str]:
        """Return what can be killed one by one now: steps and the services' workers."""

    def kill(self, name: str) -> None:
        """Kill that service or part without a warning, as in a crash."""

    def cut_power(self) -> None:
        """End everything at once, as in a power cut."""

    def restore(self) -> None:
        """Start what has ended, and wait until each service answers."""

    def list_kept(self, run: Run) -> list[str]:
        """Return the names of the pods or workspaces that a run's steps have kept for reading."""

    def list_secrets(self) -> list[str]:
        """Return every password, token and key of the lab."""

    def read_traces(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of all that the lab writes or shows: it may hold no secret."""


def make_control(config: Config) -> Control:
    """Return the control of the lab that this configuration made."""
    from tests.support.control.pods import Pods
    from tests.support.control.processes import Processes

    controls: dict[str, type[Processes] | type[Pods]] = {"embedded": Processes, "kind": Pods}
    return controls[config.backend](config)
