"""After a green end-to-end test on kind: the attestation that a promotion to AWS asks for.

Written when every end-to-end test has passed on kind, and the files that were tested are as they
were when the lab was brought up. Variations that `--once` leaves out are tried by the same path;
tests marked `long` are those of `nox -s faults`.
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
    """What a session has shown of the end-to-end tests. A plugin of pytest's."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.items: list[pytest.Item] = []  # chosen or not
        self.passed: set[str] = set()
        self.said = ""
        self.shown = ""  # what a green session will attest, as JSON: workers send it

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sees all tests before any of them is deselected."""
        self.items = [item for item in items if item.path.parent == self.tree / TESTS]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist's has shown: the one that had the lab on kind."""
        output = getattr(node, "workeroutput", {})
        self.said = output.get("said") or self.said
        self.shown = output.get("shown") or self.shown

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the attestation where every test that ran, in every worker, has passed."""
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

    def lacking(self, *, once: bool) -> list[str]:
        """The end-to-end tests that have not passed on kind, though they could have."""
        left_out = {"long", "variation"} if once else {"long"}
        due = {
            item.nodeid
            for item in self.items
            if runs_on_kind(item) and not any(map(item.get_closest_marker, left_out))
        }
        seen = {(item.path.name, function(item)) for item in self.items}
        return sorted((due - self.passed) | {"::".join(one) for one in written(self.tree) - seen})

    def files(self) -> list[str]:
        """The files whose tests have passed on kind."""
        passed = [item for item in self.items if item.nodeid in self.passed]
        tested = {item.path for item in passed if runs_on_kind(item)}
        return sorted(path.relative_to(self.tree).as_posix() for path in tested)


def runs_on_kind(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return bool(params.get("lab_config") == BACKEND)


def function(item: pytest.Item) -> str:
    return str(getattr(item, "originalname", item.name))


def written(tree: Path) -> set[tuple[str, str]]:
    """Every end-to-end test that there is, by its file and its name, collected or not."""
    return {
        (path.name, node.name)
        for path in (tree / TESTS).glob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def begin(config: Config) -> dict[str, str]:
    """What is to be tested, before a lab is made of it. Raises PromotionError for a key of no use:
    nobody shall learn that after half an hour."""
    if config.backend != BACKEND:
        return {}
    if config.attestation_key:
        attestation.private_key(config.attestation_key)
    return attestation.digests(config)


def end(request: pytest.FixtureRequest, config: Config, lab: Lab, before: dict[str, str]) -> None:
    """Keep what the session has shown of the lab on kind, for its end to attest. One that was not
    green, or ran a few tests only, attests nothing."""
    witness = request.config.pluginmanager.get_plugin(NAME)
    assert isinstance(witness, Witness)
    if config.backend != BACKEND or request.session.testsfailed or not witness.files():
        return
    once = bool(request.config.getoption("once"))
    if lacking := witness.lacking(once=once):
        witness.said = f"nothing is attested: {len(lacking)} tests like {lacking[0]} did not pass"
    elif changed := attestation.differing(before, attestation.digests(config)):
        witness.said = f"nothing is attested: {changed[0]} while the tests ran"
    else:
        tests = witness.files()
        found = attestation.statement(config, before, lab.verify(), tests, variations=not once)
        path = str(attestation.place(config))
        shown = {"subjects": dict(found.subjects), "predicate": found.predicate, "path": path}
        witness.shown = json.dumps(shown)
