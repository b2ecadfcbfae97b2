"""A command's answer is one object on stdout, whatever it prints and however it ends."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

from lab.answer import answering
from lab.errors import LabError, RunError


def read_answer(capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the object on stdout, which must be all that is there, and what is on stderr."""
    shown = capsys.readouterr()
    assert shown.out.endswith("\n")
    return json.loads(shown.out), shown.err


def test_without_json_what_is_printed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(as_json=False) as facts:
        facts["ok"] = True
        print("as people read it")
    assert capsys.readouterr().out == "as people read it\n"


def test_the_facts_are_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(as_json=True) as facts:
        print("as people read it")
        facts.update({"ok": True, "name": "größer"})
    assert read_answer(capsys) == ({"ok": True, "name": "größer"}, "")


def test_progress_goes_aside(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(as_json=True, aside=sys.stderr) as facts:
        print("a task has begun")
        facts["ok"] = True
    assert read_answer(capsys) == ({"ok": True}, "a task has begun\n")


@pytest.fixture(autouse=True)
def _outside_nox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOX_CURRENT_SESSION", raising=False)


def fail(error: BaseException) -> None:
    """Raise the error in a block that has found something before."""
    with answering(as_json=True) as facts:
        facts.update({"ok": True, "id": "a run"})
        raise error


def test_a_failure_is_an_answer_with_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError):
        fail(RunError("it failed", "lab status", Path("/var/log/it")))
    found = {"ok": False, "id": "a run"}
    what = {"error": "it failed", "try": "lab status", "log": "/var/log/it"}
    assert read_answer(capsys) == (found | what, "")


def test_what_to_do_can_be_typed_in_a_session_of_nox(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOX_CURRENT_SESSION", "lab")
    with pytest.raises(LabError):
        fail(LabError("it is paused", "lab unpause it"))
    answer, _ = read_answer(capsys)
    assert isinstance(answer, dict)
    assert answer["try"] == "nox -s lab -- unpause it"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left", "/a/file"), "the disk is full: No space left"),
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("a bug"), "ValueError('a bug')"),
    ],
    ids=["the system", "Ctrl-C", "a bug"],
)
def test_any_other_end_is_an_answer_too(
    error: BaseException, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)):
        fail(error)
    answer, _ = read_answer(capsys)
    assert isinstance(answer, dict)
    assert answer["ok"] is False
    assert answer["error"].startswith(told)
    assert answer.keys() == {"ok", "id", "error", "try", "log"}
