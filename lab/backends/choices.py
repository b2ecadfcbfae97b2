"""What a person chose against what a lab was made with: refused before anything is changed."""

from __future__ import annotations

from collections.abc import Collection

from lab.config import Config
from lab.dataset import first_version
from lab.errors import LabError, PortError
from lab.home import ports
from lab.home.state import State


def refuse_others(config: Config, known: State) -> None:
    """Raises LabError when another backend, database or dataset is asked for than this lab has."""
    asked = {
        "--backend": (None if config.backend == "auto" else config.backend, known.backend),
        "--database": (config.database, known.database),
        "--dataset": (config.dataset and first_version.path_of(config.dataset), known.dataset_path),
    }
    for option, (new, old) in asked.items():
        if new not in (None, old):
            raise LabError(
                f"this lab was made with {option} {old}, not {new}",
                "leave the option out, or set another LAB_HOME for a second lab",
            )


def refuse_unknown_pins(config: Config, names: Collection[str]) -> None:
    """Raises PortError when a port is pinned for what is no service."""
    if unknown := sorted(set(config.ports) - set(names)):
        known = ", ".join(map(ports.variable, names))
        raise PortError(f"{ports.variable(unknown[0])} is of no service", f"choose from {known}")


def refuse_moved(config: Config, known: dict[str, int], running: Collection[str]) -> None:
    """Raises PortError when a port is pinned anew while its service runs on another."""
    for name in set(running) & set(config.ports):
        if config.ports[name] != known[name]:
            raise PortError(
                f"{name} runs on port {known[name]}, not {config.ports[name]}",
                "lab down, then lab up with the new port",
            )
