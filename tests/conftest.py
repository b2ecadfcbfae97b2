"""A whole lab for tests, once per backend; tests of a backend that is not here skip and say why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.backends import BACKENDS
from lab.config import Config
from lab.errors import LabError
from lab.lab import Lab

TREE = Path(__file__).resolve().parent.parent
KNOWN = ("embedded", "kind")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=12, help="how many kills a round of faults has")
    parser.addoption("--seed", type=int, default=None, help="of the kills; printed, random if none")


@pytest.fixture(scope="session", params=KNOWN)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A fresh lab on one backend, ended and removed afterwards; its logs are kept on failure.

    It lives under awkward conditions that a lab must bear: a path with a space and non-ASCII
    letters, a C locale, and a umask that shuts everybody out.
    """
    home = tmp_path_factory.mktemp("läb") / "höme of a lab"
    config = replace(Config.from_environment(), home=home, backend=request.param)
    skip_where_absent(config)
    backend = BACKENDS[config.backend]
    os.environ["LANG"] = "C"
    before = os.umask(0o077)
    try:
        yield backend.up(config)
    finally:
        os.umask(before)
        if request.session.testsfailed:
            keep_logs(config)
        backend.down(config, purge=True)


def skip_where_absent(config: Config) -> None:
    """Skips when the backend can't run here, and fails instead where LAB_REQUIRE names it."""
    try:
        if config.backend not in BACKENDS:
            raise LabError(f"this version has no {config.backend} backend", "take a newer version")
        BACKENDS[config.backend].check(config)
    except LabError as error:
        if config.require == config.backend:
            pytest.fail(f"LAB_REQUIRE={config.require}, but: {error.what}")
        pytest.skip(f"{config.backend}: {error.what}")


def keep_logs(config: Config) -> None:
    """The lab's logs are in an archive beside the checkout's README: what CI offers to download."""
    name = shutil.make_archive(str(TREE / f"failure-{config.backend}"), "gztar", config.logs)
    print(f"\nthe logs of the failed lab are in {name}")
