"""`python -m eks COMMAND` as a person types it: its exit codes, and which account it touches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eks import bucket, environment, site
from eks.environment import Environment
from eks.ledger import Ledger
from lab.config import KIT
from tests.support.cloud import ACCOUNT, Cloud, sign_in

# The command line, which keeps its ledgers in another folder than the checkout's own.
AT = """
import sys
from eks import site
site.HOME = sys.argv.pop(1)
from eks.__main__ import main
main()
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the person's own AWS configuration; have no attestation."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GIT_SYNC"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("LAB_ATTESTATION", str(tmp_path / "attestation.json"))
    monkeypatch.setenv("PYTHONPATH", str(KIT))


def run_eks(
    *arguments: str, stdin: str = "", home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    program = ["-c", AT, str(home)] if home else ["-m", "eks"]
    command = [sys.executable, *program, *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=120, check=False
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
    done = run_eks(*arguments)
    assert done.returncode == code, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["-e", "production", "destroy"], ["destroy", "-e", "production"]]
)
def test_the_environment_that_is_named_is_the_one_that_is_meant(arguments: list[str]) -> None:
    done = run_eks(*arguments, "--yes", "--erase-bucket", "mlops-lab-staging-111122223333")
    assert done.returncode == 40
    assert "mlops-lab-production-111122223333" in done.stderr


def test_another_account_is_named_before_anything_is_asked(
    aws_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sign_in(monkeypatch, aws_server, tmp_path)
    done = run_eks("destroy", stdin="y\n")
    assert done.returncode == 42
    assert ACCOUNT in done.stderr
    assert "111122223333" in done.stderr


def test_help_tells_each_command() -> None:
    shown = run_eks("--help").stdout
    for command in ("plan", "apply", "verify", "destroy"):
        assert command in shown


# --- What a ledger says ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("apply", "--yes"), ("verify",), ("destroy", "--yes")])
def test_an_environment_that_was_moved_is_refused_before_anybody_is_asked(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    before = {**environment.load("staging").place, "region": "us-west-2"}
    ledger = Ledger(tmp_path / "staging" / "ledger.json", before)
    with ledger.making("cluster", "mlops-lab-staging"):
        pass
    done = run_eks(*command, home=tmp_path)
    assert done.returncode == 41, done
    assert "region us-west-2, the file says eu-central-1" in done.stderr
    assert "set it back" in done.stderr
    assert [entry.kind for entry in ledger.entries()] == ["cluster"]


@pytest.fixture
def owned(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return the checkout's own staging; calls to AWS are made from its account."""
    found = environment.load("staging")
    role = f"arn:aws:iam::{found.account}:role/person"
    said = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="person")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", said["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", said["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", said["SessionToken"])
    return found


def test_a_bucket_that_stays_is_named_with_the_ledger_or_without_it(
    owned: Environment, tmp_path: Path
) -> None:
    mine = site.create_site(owned, tmp_path, KIT)
    bucket.make(mine)
    mine.ledger.path.unlink()
    for _ in ("without", "with"):
        done = run_eks("destroy", "--yes", home=tmp_path)
        assert done.returncode == 0, done
        assert f"kept: bucket {owned.bucket} (" in done.stdout
        assert "nothing is left" not in done.stdout
        assert [(e.kind, e.name) for e in mine.ledger.entries()] == [("bucket", owned.bucket)]
    done = run_eks("destroy", "--yes", "--erase-bucket", owned.bucket, home=tmp_path)
    assert done.stdout.endswith("nothing is left\n"), done
    assert mine.aws.client("s3").list_buckets()["Buckets"] == []
