"""The attestation that a promotion to AWS requires, after green end-to-end tests on kind.

It is written when every test of the project's `tests/e2e` that has a lab has passed on kind, none
of that folder was left out, and the tested files are as they were when the lab came up.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from lab.config import Config
    from lab.lab import Lab

NAME = "mlops_lab_witness"
BACKEND = "kind"
TESTS = Path("tests", "e2e")
VARIATION = "variation"
# Markers of tests that need not pass, which a project's conftest.py may set: it answers for them.
# Whether `variation` is among them is a part of what is attested.
LEFT_OUT = pytest.StashKey[frozenset[str]]()


class Witness:
    """What a session has proved by the end-to-end tests. A pytest plugin."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root  # of the project
        self.items: list[pytest.Item] = []  # selected or not
        self.passed: set[str] = set()
        self.said = ""
        self.shown = ""  # what a green session will attest, as JSON, which workers can send

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Collect all end-to-end tests before any is deselected, where some test runs on kind."""
        if any(map(runs_on_kind, items)):
            self.root = self.root or find_root()
            folder = self.root / TESTS
            self.items = [item for item in items if item.path.resolve().is_relative_to(folder)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and self.items:
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
            self.said = f"attested, for a promotion to AWS: {write_statement(self.shown)}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.said:
            terminalreporter.write_line(self.said)

    def list_missing_tests(self, left_out: frozenset[str]) -> list[str]:
        """List the end-to-end tests that should have passed on kind and have not."""
        due = {
            item.nodeid
            for item in self.items
            if runs_on_kind(item) and not any(map(item.get_closest_marker, left_out))
        }
        seen = {(item.path.resolve(), function_name(item)) for item in self.items}
        unseen = {(path, name) for path, name in self.list_test_functions()} - seen
        return sorted((due - self.passed) | {f"{path.name}::{name}" for path, name in unseen})

    def list_test_functions(self) -> Iterator[tuple[Path, str]]:
        """Yield the file and name of every end-to-end test in the project, collected or not."""
        if self.root:
            for path in sorted((self.root / TESTS).rglob("*.py")):
                if path.match("test_*.py") or path.match("*_test.py"):
                    tree = ast.parse(path.read_text("utf-8"))
                    yield from ((path.resolve(), name) for name in find_test_functions(tree))

    def list_passed_files(self) -> list[str]:
        """List the files whose tests have passed on kind."""
        passed = [item for item in self.items if item.nodeid in self.passed]
        tested = {item.path.resolve() for item in passed if runs_on_kind(item)}
        return sorted(path.relative_to(self.root or path).as_posix() for path in tested)


def find_root() -> Path:
    """Return the folder of the project that the tests are in."""
    from lab.config import Config

    return Config.from_environment().root.resolve()


def runs_on_kind(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return bool(params.get("lab_backend") == BACKEND)


def function_name(item: pytest.Item) -> str:
    return str(getattr(item, "originalname", item.name))


def find_test_functions(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Yield the names of the tests of a module or a class, as pytest calls them by default."""
    for node in tree.body:
        match node:
            case ast.ClassDef() if node.name.startswith("Test"):
                yield from find_test_functions(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test"):
                yield node.name


def digest_tested_files(config: Config) -> dict[str, str]:
    """Return the digests of the files to test, before a lab is made of them.

    Raises PromotionError for an unusable key here, not after half an hour of tests.
    """
    if config.backend != BACKEND:
        return {}
    from eks import attestation

    if config.attestation_key:
        attestation.read_private_key(config.attestation_key)
    return attestation.compute_digests(config)


def keep_statement(
    request: pytest.FixtureRequest, config: Config, lab: Lab, before: dict[str, str]
) -> None:
    """Keep a statement about the lab on kind, to be written when the session ends.

    A session that was not green, or ran only a few tests, attests nothing.
    """
    witness = cast("Witness", request.config.pluginmanager.get_plugin(NAME))
    if config.backend != BACKEND or request.session.testsfailed or not witness.list_passed_files():
        return
    from eks import attestation

    left_out = request.config.stash.get(LEFT_OUT, frozenset())
    if lacking := witness.list_missing_tests(left_out):
        witness.said = f"nothing is attested: {len(lacking)} tests like {lacking[0]} did not pass"
    elif changed := attestation.compare_digests(before, attestation.compute_digests(config)):
        witness.said = f"nothing is attested: {changed[0]} while the tests ran"
    else:
        has_variations = VARIATION not in left_out
        tests = witness.list_passed_files()
        found = attestation.build_statement(
            config, before, lab.verify(), tests, variations=has_variations
        )
        path = str(attestation.attestation_path(config))
        shown = {"subjects": dict(found.subjects), "predicate": found.predicate, "path": path}
        witness.shown = json.dumps(shown)


def write_statement(shown: str) -> Path:
    """Write the attestation that a green session has shown as JSON; return its path."""
    from eks import attestation
    from lab.config import Config

    content = json.loads(shown)
    path = Path(content["path"])
    found = attestation.Statement(content["subjects"], content["predicate"])
    attestation.write(path, found, Config.from_environment().attestation_key)
    return path
