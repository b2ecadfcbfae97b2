"""pytest's plugin: `lab`, a fresh lab for the tests of a project, and what a session leaves of it.

It is loaded by each pytest of an environment that has the kit: it imports nothing of the kit before
a test asks for a lab, and has no option outside of a project, where another suite may have its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.testing import failures, witness

if TYPE_CHECKING:
    from lab.config import Config
    from lab.lab import Lab

MARKERS = (
    "embedded: of a lab of local processes",
    "kind: of a lab on Kubernetes: needs Docker, kubectl, helm or the chart",
)
BACKEND_HELP = (
    "where the labs of the tests run: auto (the default; as `lab up` chooses), each, embedded, kind"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options in a project's folder, or below it."""
    here = Path.cwd()
    if not any((folder / "lab.toml").is_file() for folder in (here, *here.parents)):
        return
    group = parser.getgroup("mlops-lab", "labs of the tests")
    try:
        group.addoption("--lab-backend", "--backend", dest="lab_backend", help=BACKEND_HELP)
    except (ValueError, argparse.ArgumentError):  # another plugin has the short one
        group.addoption("--lab-backend", dest="lab_backend", help=BACKEND_HELP)
    group.addoption(
        "--keep-lab", action="store_true", help="leave the labs up, and print what ends them"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the backends' markers, and what watches a session; both do nothing without a lab."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.pluginmanager.register(witness.Witness(), witness.NAME)
    config.pluginmanager.register(failures.Failures(), failures.NAME)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a lab once for each backend that is asked for."""
    if "lab_backend" not in metafunc.fixturenames:
        return
    from lab.testing import choices

    chosen = choices.list_backends(metafunc.config)
    if not choices.has_own_backends(metafunc):
        marked = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in chosen]
        metafunc.parametrize("lab_backend", marked, indirect=True, scope="session")


@pytest.fixture(scope="session")
def lab_backend(request: pytest.FixtureRequest) -> str:
    """Return the name of the backend on which a test's lab runs."""
    from lab.testing import choices

    if hasattr(request, "param"):
        return str(request.param)
    return choices.find_only_backend(request.config)  # of a test that no parameter can reach


@pytest.fixture(scope="session")
def lab_homes() -> Iterator[Path]:
    """Return the folder of the labs' homes; a session may have a fixture of its own for it.

    It stays if a lab does: pytest's own temporary folders go after some sessions.
    """
    folder = Path(tempfile.mkdtemp(prefix="lab-test-"))
    yield folder
    with suppress(OSError):
        folder.rmdir()


@pytest.fixture(scope="session")
def lab_config(lab_backend: str, lab_homes: Path) -> Config:
    """Return the choices of a fresh lab; skip, with the reason, where its backend is not here."""
    from lab.testing import choices

    return choices.make_config(lab_backend, lab_homes / lab_backend)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, lab_config: Config) -> Iterator[Lab]:
    """Bring a fresh lab up; remove it afterwards, and keep what it has to say on failure."""
    from lab.testing import fresh

    with fresh.running_lab(request, lab_config) as found:
        yield found
