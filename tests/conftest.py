"""What this repository's own tests have beside the plugin that each project has.

A lab has what breaks careless programs: a home with a space and non-ASCII letters, a C locale,
umask 077.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab.config import Config
from lab.foreign import leave_foreign_settings
from lab.lab import Lab
from lab.testing.witness import LEFT_OUT
from tests.support import needs, session_report, workers
from tests.support.control import Control, make_control


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=6, help="how many kills a round of faults has")
    parser.addoption("--once", action="store_true", help="leave variations out on kind")
    parser.addoption("--every", action="store_true", help="sweep over every call, not every kind")
    parser.addoption("--seed", type=int, default=None, help="of the kills; printed, random if none")


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugins; let SIGINT interrupt commands though pytest's parent may ignore it.

    AWS is what a test says it is, and nothing of the person's. Variations follow the path of a test
    beside them; tests marked `long` belong to `nox -s faults`: neither is needed for a promotion.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leave_foreign_settings()
    again = {"variation"} if config.getoption("--once") else set()
    config.stash[LEFT_OUT] = frozenset({"long"} | again)
    config.pluginmanager.register(session_report.SessionReport(), session_report.NAME)
    workers.share_ports(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that use AWS, skip variations on kind with `--once`, and put the longest first."""
    for item in items:
        if "aws_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.aws)
        again = item.get_closest_marker("variation") and workers.room(item.nodeid) == "kind"
        if again and config.getoption("--once"):
            item.add_marker(pytest.mark.skip(reason="--once: a variation, tried on embedded"))
        if item.get_closest_marker("long") and not config.getoption("--every"):
            item.add_marker(pytest.mark.skip(reason="long: nox -s faults runs it"))
    items.sort(key=workers.rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give each worker whole files, and all tests of one lab to one worker."""
    return workers.make_scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips without kind's tools and lacks the marker: CI would never run it."""
    report = yield
    absent = report.skipped and needs.ABSENT in str(report.longrepr)
    if absent and not item.get_closest_marker("kind"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} needs kind's tools and lacks the marker `kind`"
    return report


@pytest.fixture(scope="session")
def lab_homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the labs' homes, with a space and non-ASCII letters in its path."""
    return tmp_path_factory.mktemp("läb") / "höme of a lab"


@pytest.fixture(scope="session")
def lab_config(lab_config: Config) -> Config:
    """Return the configuration of a lab on one backend, whose images are there."""
    needs.build_images(lab_config)
    return lab_config


@pytest.fixture(scope="session")
def narrow_process(lab_config: Config) -> Iterator[None]:
    """Set a C locale, and umask 077 until the lab is gone."""
    os.environ["LANG"] = "C"
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def lab(narrow_process: None, lab: Lab) -> Lab:
    """Return a fresh lab, which has started in a C locale, with umask 077."""
    return lab


@pytest.fixture(scope="session")
def control(lab: Lab, lab_config: Config) -> Control:
    """Return the control that kills parts of the lab and reads what only its owner may read."""
    return make_control(lab_config)
