"""Where a lab can run: one module per backend, and the dict that names them.

Each has `check`, `findings`, `up`, `connect`, `services`, `logs`, `follow_commands`, `collect`,
`undeclared_ports`, `down` and `forget`; no base class says so.
"""

from __future__ import annotations

from types import ModuleType

from lab import state
from lab.backends import embedded, kind
from lab.config import Config
from lab.errors import BackendError, LabError

BACKENDS: dict[str, ModuleType] = {embedded.NAME: embedded, kind.NAME: kind}


def of(name: str) -> ModuleType:
    """The backend of that name. Raises BackendError when there is none."""
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}", f"choose auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def choose(config: Config) -> tuple[ModuleType, str]:
    """The backend that the config asks for, and why it is that one. Raises BackendError."""
    if config.backend != "auto":
        return of(config.backend), "asked for"
    if known := state.read(config):
        return of(known.backend), "this lab was made so"
    if config.database == "sqlite":
        return embedded, "--database sqlite"
    try:
        kind.check(config)
    except LabError as error:
        return embedded, f"no kind: {error.what}"
    return kind, "Docker answers, and there is room"
