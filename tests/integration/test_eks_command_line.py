"""`python -m eks COMMAND` as a person types it: its exit codes, and whom it touches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.config import TREE
from tests.integration.cloud import ACCOUNT, sign_in


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person's own AWS set-up; no attestation."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GIT_SYNC"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("LAB_ATTESTATION", str(tmp_path / "attestation.json"))
    monkeypatch.setenv("PYTHONPATH", str(TREE))


def eks(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eks", *arguments]
    return subprocess.run(
        command, input=said, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["plan", "-e", "nowhere"], 41, "production, staging"),
        (["-e", "production", "apply", "-e", "staging"], 41, "two environments"),
        (["apply", "--yes"], 40, "nox -s e2e"),
        (["verify"], 42, "aws sso login"),
        (["destroy", "--yes"], 42, "aws sso login"),
        (["destroy", "--yes", "--erase-bucket", "another"], 40, "mlops-lab-staging-"),
        (["nothing"], 2, "--help"),
        (["apply", "--force"], 2, "--help"),
    ],
)
def test_what_can_not_be_is_refused_with_its_code(
    arguments: list[str], code: int, said: str
) -> None:
    done = eks(*arguments)
    assert done.returncode == code, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["-e", "production", "destroy"], ["destroy", "-e", "production"]]
)
def test_the_environment_that_is_named_is_the_one_that_is_meant(arguments: list[str]) -> None:
    done = eks(*arguments, "--yes", "--erase-bucket", "mlops-lab-staging-111122223333")
    assert done.returncode == 40
    assert "mlops-lab-production-111122223333" in done.stderr


def test_another_account_is_named_before_anything_is_asked(
    aws_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sign_in(monkeypatch, aws_server, tmp_path)
    done = eks("destroy", said="y\n")
    assert done.returncode == 42
    assert ACCOUNT in done.stderr
    assert "111122223333" in done.stderr


def test_help_tells_each_command() -> None:
    shown = eks("--help").stdout
    for command in ("plan", "apply", "verify", "destroy"):
        assert command in shown
