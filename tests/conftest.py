"""A whole lab for tests, once per backend; tests of a backend that is not here skip and say why."""

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
from lab.lab import Lab
from tests.support import attest, durations, failures, needs, workers
from tests.support.control import Control, control_of

TREE = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=6, help="how many kills a round of faults has")
    parser.addoption("--once", action="store_true", help="leave variations out on kind")
    parser.addoption("--every", action="store_true", help="sweep over every call, not every kind")
    parser.addoption("--seed", type=int, default=None, help="of the kills; printed, random if none")


def pytest_configure(config: pytest.Config) -> None:
    """Commands under test can be interrupted, even where whoever started pytest ignores that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(attest.Witness(TREE), attest.NAME)
    config.pluginmanager.register(failures.Failures(), failures.NAME)
    config.pluginmanager.register(durations.Durations(), durations.NAME)
    workers.share_ports(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what asks AWS; leave variations out on kind with `--once`; begin with the longest."""
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
    return workers.scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what skips for want of kind's tools and is not marked so: CI would never run it."""
    report = yield
    absent = report.skipped and needs.ABSENT in str(report.longrepr)
    if absent and not item.get_closest_marker("kind"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} needs kind's tools and lacks the marker `kind`"
    return report


def backend_params() -> list[object]:
    """Return each backend as a parameter with a marker of its name."""
    return [pytest.param(name, marks=getattr(pytest.mark, name)) for name in NAMES]


@pytest.fixture(scope="session", params=backend_params())
def lab_config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Return the choices of a lab on one backend, under awkward conditions that it must bear.

    Its home has a space and non-ASCII letters in its path.
    """
    home = tmp_path_factory.mktemp("läb") / "höme of a lab"
    return replace(Config.from_environment(), home=home, backend=request.param)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, lab_config: Config) -> Iterator[Lab]:
    """Bring a fresh lab up; end and remove it afterwards, and keep its logs on failure.

    It begins in a C locale, and with a umask that shuts everybody out.
    """
    config = lab_config
    skip_where_absent(config)
    needs.build_images(config)
    backend = find_backend(config.backend)
    tested = attest.begin(config)
    os.environ["LANG"] = "C"
    before = os.umask(0o077)
    well = False
    try:
        running = backend.up(config)
        yield running
        attest.end(request, config, running, tested)
        well = not request.session.testsfailed
    finally:
        os.umask(before)
        if not well:
            failures.say(request.config, keep_evidence(config))
        if request.config.getoption("keep_cluster"):
            ends = f"LAB_HOME={shlex.quote(str(config.home))} lab down --purge"
            failures.say(request.config, f"kept; ends with: {ends}")
        else:
            backend.down(config, purge=True)


@pytest.fixture(scope="session")
def control(lab: Lab, lab_config: Config) -> Control:
    """Return what kills parts of the lab, and reads what only its owner may read."""
    return control_of(lab_config)


def skip_where_absent(config: Config) -> None:
    """Skips when the backend can't run here, and fails instead where LAB_REQUIRE names it."""
    if Config.from_environment().backend not in ("auto", config.backend):
        pytest.skip(f"LAB_BACKEND={Config.from_environment().backend}")
    try:
        find_backend(config.backend).check(config)
    except LabError as error:
        if config.require == config.backend:
            pytest.fail(f"LAB_REQUIRE={config.require}, but: {error.what}")
        pytest.skip(f"{config.backend}: {error.what}")


def keep_evidence(config: Config) -> str:
    """What tells why a lab failed is in an archive beside the README, for CI to offer: where."""
    name = str(TREE / f"failure-{config.backend}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            find_backend(config.backend).collect_evidence(config, Path(folder))
            archive = shutil.make_archive(name, "gztar", folder)
            return f"what the failed lab has to say is in {archive}"
    except (LabError, OSError) as error:  # the lab is ended all the same
        return f"what the failed lab has to say can't be had: {error}"
