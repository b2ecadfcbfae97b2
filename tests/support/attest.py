"""The attestation that a promotion to AWS requires, after green end-to-end tests on kind.

It is written when every end-to-end test has passed on kind and the tested files are as they were
when the lab came up. Variations that `--once` leaves out follow the same path; tests marked `long`
belong to `nox -s faults`.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from eks import attestation
from lab.config import Config
from lab.lab import Lab

NAME = "witness"
BACKEND = "kind"
TESTS = Path("tests", "e2e")


class Witness:
    """What a session has proved by the end-to-end tests. A pytest plugin."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.items: list[pytest.Item] = []  # selected or not
        self.passed: set[str] = set()
        self.said = ""
        self.shown = ""  # what a green session will attest, as JSON, which workers can send

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Collect all tests before any is deselected."""
        self.items = [item for item in items if item.path.parent == self.tree / TESTS]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over the result of the pytest-xdist worker that had the lab on kind."""
        output = getattr(node, "workeroutput", {})
        self.said = output.get("said") or self.said
        self.shown = output.get("shown") or self.shown

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the attestation if every test that ran, in every worker, has passed."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput |= {"said": self.said, "shown": self.shown}
        elif self.shown and not session.testsfailed:
            config, shown = Config.from_environment(), json.loads(self.shown)
            found = attestation.Statement(shown["subjects"], shown["predicate"])
            path = Path(shown["path"])
            attestation.write(path, found, config.attestation_key)
            self.said = f"attested, for a promotion to AWS: {path}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.said:
            terminalreporter.write_line(self.said)

    def list_missing_tests(self, *, once: bool) -> list[str]:
        """List the end-to-end tests that should have passed on kind and have not."""
        left_out = {"long", "variation"} if once else {"long"}
        due = {
            item.nodeid
            for item in self.items
            if runs_on_kind(item) and not any(map(item.get_closest_marker, left_out))
        }
        seen = {(item.path.name, function_name(item)) for item in self.items}
        return sorted(
            (due - self.passed) | {"::".join(one) for one in list_test_functions(self.tree) - seen}
        )

    def list_passed_files(self) -> list[str]:
        """List the files whose tests have passed on kind."""
        passed = [item for item in self.items if item.nodeid in self.passed]
        tested = {item.path for item in passed if runs_on_kind(item)}
        return sorted(path.relative_to(self.tree).as_posix() for path in tested)


def runs_on_kind(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return bool(params.get("lab_config") == BACKEND)


def function_name(item: pytest.Item) -> str:
    return str(getattr(item, "originalname", item.name))


def list_test_functions(tree: Path) -> set[tuple[str, str]]:
    """Return the file and name of every end-to-end test in the tree, collected or not."""
    return {
        (path.name, node.name)
        for path in (tree / TESTS).glob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def digest_tested_files(config: Config) -> dict[str, str]:
    """Return the digests of the files to test, before a lab is made of them.

    Raises PromotionError for an unusable key here, not after half an hour of tests.
    """
    if config.backend != BACKEND:
        return {}
    if config.attestation_key:
        attestation.read_private_key(config.attestation_key)
    return attestation.compute_digests(config)


def keep_statement(
    request: pytest.FixtureRequest, config: Config, lab: Lab, before: dict[str, str]
) -> None:
    """Keep a statement about the lab on kind, to be written when the session ends.

    A session that was not green, or ran only a few tests, attests nothing.
    """
    witness = request.config.pluginmanager.get_plugin(NAME)
    assert isinstance(witness, Witness)
    if config.backend != BACKEND or request.session.testsfailed or not witness.list_passed_files():
        return
    once = bool(request.config.getoption("once"))
    if lacking := witness.list_missing_tests(once=once):
        witness.said = f"nothing is attested: {len(lacking)} tests like {lacking[0]} did not pass"
    elif changed := attestation.compare_digests(before, attestation.compute_digests(config)):
        witness.said = f"nothing is attested: {changed[0]} while the tests ran"
    else:
        tests = witness.list_passed_files()
        found = attestation.build_statement(
            config, before, lab.verify(), tests, variations=not once
        )
        path = str(attestation.attestation_path(config))
        shown = {"subjects": dict(found.subjects), "predicate": found.predicate, "path": path}
        witness.shown = json.dumps(shown)
