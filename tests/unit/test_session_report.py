"""What tests took, skipped and failed: at the end of a session, and of CI."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support import session_report

REPORTS = (("tests/a.py::one[kind]", 40.0), ("tests/a.py::two", 2.0), ("tests/b.py::one", 30.0))
ABSENT = ("tests/a.py", 7, "Skipped: kind: no Docker answers")
CRASH = SimpleNamespace(
    reprcrash=SimpleNamespace(message="AssertionError: assert 2 == 1\n  + where")
)
SESSION: Any = SimpleNamespace(config=SimpleNamespace())


def make_report(nodeid: str, **fields: Any) -> Any:
    """Return the report of a phase of a test that passed, but for the given fields."""
    known = {"when": "call", "duration": 0.0, "skipped": False, "failed": False, "longrepr": None}
    return SimpleNamespace(nodeid=nodeid, **{**known, **fields})


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with the times of a session of three tests."""
    monkeypatch.setenv(session_report.VARIABLE, str(tmp_path))
    plugin = session_report.SessionReport()
    for nodeid, seconds in REPORTS:
        for when, part in (("setup", 1.0), ("call", seconds)):
            plugin.pytest_runtest_logreport(make_report(nodeid, when=when, duration=part))
    plugin.pytest_sessionfinish(SESSION)
    return tmp_path


def test_times_are_summed_by_file_and_on_kind_apart(session: Path) -> None:
    (path,) = session.glob("*.json")
    found = json.loads(path.read_text("utf-8"))
    assert found["seconds"] == {"tests/a.py on kind": 41, "tests/a.py": 3, "tests/b.py": 31}
    assert found["tests"] == {"tests/a.py on kind": 1, "tests/a.py": 1, "tests/b.py": 1}


def test_ci_ends_with_a_table(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (session / "phases").write_text("9 install nox\n700 nox -s tests\n")
    session_report.print_table(session)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines[:3] == [
        ["seconds", "what"],
        ["9", "install", "nox"],
        ["700", "nox", "-s", "tests"],
    ]
    assert lines[3][1:4] == ["pytest:", "3", "tests;"]
    assert [line[1:] for line in lines[4:]] == [
        ["tests/a.py", "on", "kind", "(1)"],
        ["tests/b.py", "(1)"],
        ["tests/a.py", "(1)"],
    ]


def test_a_session_without_a_folder_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(session_report.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    plugin = session_report.SessionReport()
    plugin.pytest_sessionfinish(SESSION)
    assert not list(tmp_path.iterdir())


def test_reasons_to_skip_are_counted() -> None:
    plugin = session_report.SessionReport()
    for number in range(3):
        skipped = make_report(f"tests/a.py::n{number}", skipped=True, longrepr=ABSENT)
        plugin.pytest_runtest_logreport(skipped)
    lines: list[str] = []
    reporter = SimpleNamespace(section=lines.append, write_line=lines.append)
    plugin.pytest_terminal_summary(cast("Any", reporter))
    assert lines == ["skipped", "      3  kind: no Docker answers"]


def test_ci_says_last_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(session_report.VARIABLE, str(tmp_path))
    plugin = session_report.SessionReport()
    plugin.pytest_runtest_logreport(make_report("tests/a.py::one", failed=True, longrepr=CRASH))
    plugin.pytest_sessionfinish(SESSION)
    session_report.print_table(tmp_path)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "failed   tests/a.py::one",
        "         call: AssertionError: assert 2 == 1 + where",
    ]
