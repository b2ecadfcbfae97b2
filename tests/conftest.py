"""A whole lab for tests, once per backend; tests skip, with the reason, if it can't run here."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.backends import NAMES, find_backend
from lab.config import Config
from lab.errors import LabError
from lab.foreign import leave_foreign_settings
from lab.lab import Lab
from tests.support import attest, durations, failures, needs, workers
from tests.support.control import Control, make_control

TREE = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=6, help="how many kills a round of faults has")
    parser.addoption("--once", action="store_true", help="leave variations out on kind")
    parser.addoption("--every", action="store_true", help="sweep over every call, not every kind")
    parser.addoption("--seed", type=int, default=None, help="of the kills; printed, random if none")


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugins; let SIGINT interrupt commands though pytest's parent may ignore it.

    AWS is what a test says it is, and nothing of the person's.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leave_foreign_settings()
    config.pluginmanager.register(attest.Witness(TREE), attest.NAME)
    config.pluginmanager.register(failures.Failures(), failures.NAME)
    config.pluginmanager.register(durations.Durations(), durations.NAME)
    workers.share_ports(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that use AWS, skip variations on kind with `--once`, and put the longest first."""
    for item in items:
        if "aws_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.aws)
        again = item.get_closest_marker("variation") and "[kind" in item.name
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


def backend_params() -> list[object]:
    """Return each backend as a parameter with the marker of its name."""
    return [pytest.param(name, marks=getattr(pytest.mark, name)) for name in NAMES]


@pytest.fixture(scope="session", params=backend_params())
def lab_config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Return the configuration of a lab on one backend, with a space and non-ASCII in its path."""
    home = tmp_path_factory.mktemp("läb") / "höme of a lab"
    return replace(Config.from_environment(), home=home, backend=request.param)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, lab_config: Config) -> Iterator[Lab]:
    """Bring a fresh lab up; remove it afterwards, and keep its logs on failure.

    It starts in a C locale, with umask 077.
    """
    config = lab_config
    skip_where_absent(config)
    needs.build_images(config)
    backend = find_backend(config.backend)
    tested = attest.digest_tested_files(config)
    os.environ["LANG"] = "C"
    before = os.umask(0o077)
    well = False
    try:
        running = backend.up(config)
        yield running
        attest.keep_statement(request, config, running, tested)
        well = not request.session.testsfailed
    finally:
        os.umask(before)
        if not well:
            failures.print_line(request.config, keep_evidence(config))
        if request.config.getoption("keep_cluster"):
            ends = f"LAB_HOME={shlex.quote(str(config.home))} lab down --purge"
            failures.print_line(request.config, f"kept; ends with: {ends}")
        else:
            backend.down(config, purge=True)


@pytest.fixture(scope="session")
def control(lab: Lab, lab_config: Config) -> Control:
    """Return the control that kills parts of the lab and reads what only its owner may read."""
    return make_control(lab_config)


def skip_where_absent(config: Config) -> None:
    """Skip if the backend can't run here, or fail where LAB_REQUIRE names it."""
    if Config.from_environment().backend not in ("auto", config.backend):
        pytest.skip(f"LAB_BACKEND={Config.from_environment().backend}")
    try:
        find_backend(config.backend).check(config)
    except LabError as error:
        if config.require == config.backend:
            pytest.fail(f"LAB_REQUIRE={config.require}, but: {error.what}")
        pytest.skip(f"{config.backend}: {error.what}")


def keep_evidence(config: Config) -> str:
    """Write the failed lab's evidence to an archive beside the README, for CI; return where."""
    name = str(TREE / f"failure-{config.backend}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            find_backend(config.backend).collect_evidence(config, Path(folder))
            archive = shutil.make_archive(name, "gztar", folder)
            return f"what the failed lab has to say is in {archive}"
    except (LabError, OSError) as error:  # the lab is ended all the same
        return f"what the failed lab has to say can't be had: {error}"
