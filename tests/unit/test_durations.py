"""How long tests took, by file: at the end of a session, and of CI."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support import durations

REPORTS = (("tests/a.py::one[kind]", 40.0), ("tests/a.py::two", 2.0), ("tests/b.py::one", 30.0))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with the times of a session of three tests."""
    monkeypatch.setenv(durations.VARIABLE, str(tmp_path))
    plugin = durations.Durations()
    for nodeid, seconds in REPORTS:
        for when, part in (("setup", 1.0), ("call", seconds)):
            report = SimpleNamespace(nodeid=nodeid, when=when, duration=part)
            plugin.pytest_runtest_logreport(cast("Any", report))
    plugin.pytest_sessionfinish(cast("Any", SimpleNamespace(config=SimpleNamespace())))
    return tmp_path


def test_times_are_summed_by_file_and_on_kind_apart(session: Path) -> None:
    (path,) = session.glob("*.json")
    found = json.loads(path.read_text("utf-8"))
    assert found["seconds"] == {"tests/a.py on kind": 41, "tests/a.py": 3, "tests/b.py": 31}
    assert found["tests"] == {"tests/a.py on kind": 1, "tests/a.py": 1, "tests/b.py": 1}


def test_ci_ends_with_a_table(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (session / "phases").write_text("9 install nox\n700 nox -s tests\n")
    durations.print_table(session)
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
    monkeypatch.delenv(durations.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    plugin = durations.Durations()
    plugin.pytest_sessionfinish(cast("Any", SimpleNamespace(config=SimpleNamespace())))
    assert not list(tmp_path.iterdir())
