"""A lab of a session's own: brought up, ended afterwards, and asked why where something failed."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends import find_backend
from lab.config import Config
from lab.console import LOOPBACK, rewrite_for_nox
from lab.errors import LabError
from lab.foreign import PREFIXES, leave_foreign_settings
from lab.lab import Lab
from lab.testing import witness
from lab.testing.failures import print_line

if TYPE_CHECKING:
    import pytest


@contextmanager
def running_lab(request: pytest.FixtureRequest, config: Config) -> Iterator[Lab]:
    """Yield a lab; end it afterwards with its home, unless the session keeps it.

    A session with failures keeps the lab's evidence; a green one on kind attests its files.
    """
    with own_environment():
        tested = witness.digest_tested_files(config)
        is_well = False
        try:
            lab = bring_up(config)
            yield lab
            witness.keep_statement(request, config, lab, tested)
            is_well = not request.session.testsfailed
        finally:
            if not is_well:
                print_line(request.config, keep_evidence(config))
            end_or_keep(request.config, config)


@contextmanager
def own_environment() -> Iterator[None]:
    """Leave out what the person has set for AWS and for proxies, while a lab is there."""
    before = dict(os.environ)
    leave_foreign_settings()
    direct = before.get("no_proxy") or before.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, (direct, LOOPBACK)))
    try:
        yield
    finally:
        for name in filter(is_changed_here, list(os.environ)):
            del os.environ[name]
        os.environ.update({name: before[name] for name in filter(is_changed_here, before)})


def is_changed_here(name: str) -> bool:
    return name == "no_proxy" or name.startswith(PREFIXES)


def bring_up(config: Config) -> Lab:
    """Bring a lab up and return it. Raises LabError, which says what to do in a note."""
    try:
        return find_backend(config.backend).up(config)
    except LabError as error:
        log = f" (log: {error.log})" if error.log else ""
        error.add_note(f"try: {rewrite_for_nox(error.fix)}{log}")
        raise


def end_or_keep(session: pytest.Config, config: Config) -> None:
    """Remove the lab, or print what does so where the person wants to look at it."""
    if session.getoption("keep_lab", False) or session.getoption("keep_cluster", False):
        ends = rewrite_for_nox(f"LAB_HOME={shlex.quote(str(config.home))} lab down --purge")
        print_line(session, f"kept; ends with: {ends}")
    else:
        find_backend(config.backend).down(config, purge=True)


def keep_evidence(config: Config) -> str:
    """Write the failed lab's evidence to an archive in the project, for CI; return where."""
    name = str(config.root / f"failure-{config.backend}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            find_backend(config.backend).collect_evidence(config, Path(folder))
            archive = shutil.make_archive(name, "gztar", folder)
            return f"what the failed lab has to say is in {archive}"
    except (LabError, OSError) as error:  # the lab is ended all the same
        return f"what the failed lab has to say can't be had: {error}"
