"""One line per phase, with its seconds, in what the terminal can show."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console

from lab import progress
from lab.progress import counting_phase, mark, phase, phase_title, silent_phase
from lab.wait import NotYet, wait_until


def fail_in_phase(name: str) -> None:
    with phase(name):
        raise OSError("it broke")


def test_a_phase_that_ends_is_marked_done(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("Sing a song"):
        assert capsys.readouterr().out == ""
    assert re.fullmatch(r"✓ Sing a song {51} +\d+\.\d s\n", capsys.readouterr().out)


def test_a_phase_that_raises_is_marked_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="it broke"):
        fail_in_phase("Sing a song")
    assert capsys.readouterr().out.startswith("✗ Sing a song ")


def test_an_interrupted_phase_is_marked_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), phase("Sing a song"):
        raise KeyboardInterrupt
    assert capsys.readouterr().out.startswith("✗ Sing a song ")


def test_a_terminal_without_such_letters_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    assert (mark(True), mark(False)) == ("ok", "failed")
    with phase("Sing a song"):
        pass
    plain.flush()
    assert plain.buffer.getvalue().startswith(b"ok Sing a song ")


def test_a_terminal_shows_a_title_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DAG may have any name, which must not be read as markup."""
    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "create_console", lambda: Console(file=screen, force_terminal=True)
    )
    with phase("Run [/red]"):
        pass
    assert "Run [/red]" in screen.getvalue()


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def require_change(self) -> None:
        if "\r" not in self.getvalue():
            raise NotYet("nothing is shown")


def test_a_terminal_sees_that_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(progress, "STEP", 0.01)
    with counting_phase("Sing a song"):
        wait_until(screen.require_change, what="the line", timeout=10, interval=0.01)
    *counted, last = screen.getvalue().rstrip("\n").split("\r")
    assert len(set(counted)) > 1
    assert "Sing a song" in counted[-1]
    assert last.split()[1:4] == ["Sing", "a", "song"]


def test_what_is_no_terminal_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with counting_phase("Sing a song"):
        assert capsys.readouterr().out == ""
    assert re.fullmatch(r"✓ Sing a song {51} +\d+\.\d s\n", capsys.readouterr().out)


def test_silence_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with silent_phase("Sing a song"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_title_is_the_first_line_of_a_docstring() -> None:
    def play() -> None:
        """Play a song.

        As loud as you can.
        """

    def hum() -> None:
        pass

    assert (phase_title(play), phase_title(hum)) == ("Play a song", "hum")
