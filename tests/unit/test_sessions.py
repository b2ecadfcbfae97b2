"""The sessions that every project has, as far as they can be tried without nox."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import sessions


class Ended(Exception):
    """What nox raises when a session is ended."""


def make_session(*words: str) -> Any:
    """Return what the functions use of a session."""

    def error(line: str) -> None:
        raise Ended(line)

    return SimpleNamespace(error=error, posargs=list(words))


@pytest.mark.parametrize("line", ["dataset-steps", "Model_Steps>=1", "  mlops-lab[postgresql]"])
def test_a_lock_asks_no_index_for_a_name_of_ours(tmp_path: Path, line: str) -> None:
    file = tmp_path / "requirements.in"
    file.write_text(f"duckdb\n{line}  # why\n")
    with pytest.raises(Ended, match=r"requirements.in names .* Try: delete that line"):
        sessions.refuse_own_packages(make_session(), file)


def test_what_only_begins_like_a_name_of_ours_is_somebody_elses(tmp_path: Path) -> None:
    file = tmp_path / "requirements.in"
    file.write_text(
        "dataset-steps-of-mine\nmlops-laboratory\n# mlops-lab has polars, too\npolars\n"
    )
    sessions.refuse_own_packages(make_session(), file)


def test_without_requirements_there_is_nothing_to_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Ended, match=r"there is no images/\*/requirements.in. Try: "):
        sessions.lock_images(make_session())


def test_postgresql_is_installed_only_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_DATABASE", raising=False)
    asked = make_session("up", "--database=postgresql")
    assert sessions.runtime_locks(make_session("up")) == ("lab",)
    assert sessions.runtime_locks(asked) == ("lab", "postgresql")
    monkeypatch.setenv("LAB_DATABASE", "postgresql")
    assert sessions.runtime_locks(make_session()) == ("lab", "postgresql")


def test_there_is_no_session_of_another_name() -> None:
    assert set(sessions.SESSIONS) == {"lab", "e2e", "eks", "lock"}
    with pytest.raises(AttributeError, match="no attribute 'publish'"):
        _ = sessions.publish
