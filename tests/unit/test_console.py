"""What a command prints of an error, and where it keeps what a program has printed."""

from __future__ import annotations

import stat
import sys
import tempfile
from pathlib import Path

import pytest

from lab.console import keep_output, print_error
from lab.errors import LabError, ProofError
from lab.shell import run

FAILS = "print('[1, 2]\\n' * 50); raise SystemExit('fatal: no room')"


def fail() -> LabError:
    """Return the error of a program that printed much."""
    with pytest.raises(LabError) as caught:
        run([sys.executable, "-c", FAILS], timeout=30, fix="make room")
    return caught.value


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the lab's folder of logs, which does not exist yet; temporary files are beside it."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "lab"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "lab" / "logs"


def test_a_programs_output_is_in_a_log_of_the_lab(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.mkdir(parents=True)
    assert print_error(fail()) == LabError.exit_code
    log = logs / f"{Path(sys.executable).name}.log"
    said = capsys.readouterr().err
    assert said == f"error: {log.stem} failed: no room\n  try: make room\n  log: {log}\n"
    assert log.read_text().startswith(f"+ {sys.executable} -c ")
    assert log.read_text().count("[1, 2]\n") == 50
    assert log.read_text().endswith("\nfatal: no room\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_without_a_lab_it_is_in_a_temporary_file(logs: Path) -> None:
    error = fail()
    keep_output(error)
    assert error.log
    assert error.log.parent.parent == logs.parent.parent
    assert "fatal: no room" in error.log.read_text()
    assert not logs.exists()


def test_the_output_that_led_to_an_error_is_kept_with_that(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error, cause = ProofError("nothing is proved", "look"), LabError("it is wrong", "look")
    cause.__cause__ = fail()
    error.__cause__ = cause
    print_error(error)
    assert error.log
    assert capsys.readouterr().err.endswith(f"  log: {error.log}\n")
    assert "fatal: no room" in error.log.read_text()


def test_the_log_of_a_service_is_shown(
    tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "service.log"
    log.write_text("one\ntwo\n")
    error = LabError("it died", "look", log)
    error.__cause__ = fail()
    print_error(error)
    assert capsys.readouterr().err.endswith(
        f"  log: {log} (its last lines below)\n    one\n    two\n"
    )


def test_a_log_that_cant_be_written_hides_no_error(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    print_error(fail())
    assert capsys.readouterr().err.endswith("failed: no room\n  try: make room\n")
    monkeypatch.setenv("LAB_PORT_MINIO", "none")  # no choices, no place
    print_error(fail())
    assert capsys.readouterr().err.endswith("failed: no room\n  try: make room\n")
