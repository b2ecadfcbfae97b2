"""Where a lab can run: one module per backend, and the dict that names them.

Each has `check`, `up`, `connect`, `services`, `logs` and `down`; no base class says so.
"""

from __future__ import annotations

from types import ModuleType

from lab.backends import embedded
from lab.config import Config
from lab.errors import BackendError

BACKENDS: dict[str, ModuleType] = {embedded.NAME: embedded}


def of(name: str) -> ModuleType:
    """The backend of that name. Raises BackendError when there is none."""
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}", f"choose auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def choose(config: Config) -> tuple[ModuleType, str]:
    """The backend that the config asks for, and why it is that one. Raises BackendError."""
    if config.backend != "auto":
        return of(config.backend), "asked for"
    return embedded, "the only one that this version has"
