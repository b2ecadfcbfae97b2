"""Which backends a test's lab runs on, and what is to happen where one of them is not here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.backends import NAMES, choose_backend, find_backend
from lab.config import Config
from lab.errors import LabError

AUTO, EACH = "auto", "each"
CHOSEN = pytest.StashKey[Sequence[str]]()


def list_backends(config: pytest.Config) -> Sequence[str]:
    """List the backends that a test with a lab runs on: one, or with `--backend=each` all.

    Raises pytest's CollectError when there is no project, or no such backend.
    """
    if CHOSEN not in config.stash:
        try:
            config.stash[CHOSEN] = choose_names(config.getoption("lab_backend", None) or AUTO)
        except LabError as error:
            raise pytest.Collector.CollectError(f"{error.what}\n  try: {error.fix}") from None
    return config.stash[CHOSEN]


def choose_names(asked: str) -> Sequence[str]:
    """Return the names of the backends that an option asks for. Raises LabError."""
    choices = Config.from_environment()
    if asked == EACH:
        return NAMES
    if asked != AUTO:
        return [find_backend(asked).NAME]
    if choices.backend == AUTO and choices.require in NAMES:
        return [choices.require]
    # No home is there yet; its disk is that of the temporary folders.
    fresh = Path(tempfile.gettempdir(), f"lab-test-{os.getpid()}", "home")
    backend, _ = choose_backend(replace(choices, home=fresh))
    return [backend.NAME]


def has_own_backends(metafunc: pytest.Metafunc) -> bool:
    """Return whether a test says itself which backends it runs on, by `parametrize`."""
    marks = metafunc.definition.iter_markers("parametrize")
    named = [mark.args[0] if mark.args else mark.kwargs["argnames"] for mark in marks]
    lists = (each.split(",") if isinstance(each, str) else each for each in named)
    return any("lab_backend" in map(str.strip, each) for each in lists)


def find_only_backend(config: pytest.Config) -> str:
    """Return the session's backend; fail a test without parameters if there are several."""
    name, *others = list_backends(config)
    if others:
        pytest.fail("with --backend=each a test names `lab` among its arguments", pytrace=False)
    return name


def make_config(backend: str, home: Path) -> Config:
    """Return the choices of a lab in that home, on that backend.

    Skips if the backend can't run here, or fails where LAB_REQUIRE names it.
    """
    asked = Config.from_environment()
    if asked.backend not in (AUTO, backend):
        pytest.skip(f"LAB_BACKEND={asked.backend}")
    config = replace(asked, home=home, backend=backend)
    try:
        find_backend(backend).check(config)
    except LabError as error:
        if config.require == backend:
            pytest.fail(f"LAB_REQUIRE={config.require}, but: {error.what}")
        pytest.skip(f"{backend}: {error.what}")
    return config
