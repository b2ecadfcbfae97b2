"""Options that contradict an existing lab, refused before anything is changed."""

from __future__ import annotations

from collections.abc import Collection

from lab.config import Config
from lab.dataset import first_version
from lab.errors import LabError, PortError
from lab.home import ports
from lab.home.state import State


def refuse_other_choices(config: Config, known: State) -> None:
    """Raise LabError when the options name another backend, database or dataset than the lab's."""
    options = {
        "--backend": (None if config.backend == "auto" else config.backend, known.backend),
        "--database": (config.database, known.database),
        "--dataset": (
            config.dataset and first_version.repository_path(config.dataset),
            known.dataset_path,
        ),
    }
    for option, (new, old) in options.items():
        if new not in (None, old):
            raise LabError(
                f"this lab was made with {option} {old}, not {new}",
                "leave the option out, or set another LAB_HOME for a second lab",
            )


def refuse_unknown_pins(config: Config, names: Collection[str]) -> None:
    """Raise PortError when a port is pinned for a service that doesn't exist."""
    if unknown := sorted(set(config.ports) - set(names)):
        known = ", ".join(map(ports.port_variable, names))
        raise PortError(
            f"{ports.port_variable(unknown[0])} is of no service", f"choose from {known}"
        )


def refuse_moved_ports(config: Config, known: dict[str, int], running: Collection[str]) -> None:
    """Raise PortError when a port is pinned while its service runs on another one."""
    for name in set(running) & set(config.ports):
        if config.ports[name] != known[name]:
            raise PortError(
                f"{name} runs on port {known[name]}, not {config.ports[name]}",
                "lab down, then lab up with the new port",
            )
