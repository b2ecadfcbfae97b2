"""What the commands answer to programs and to shells, on a lab that runs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.config import Config
from lab.lab import Lab

pytestmark = pytest.mark.variation  # the command line is the same on each backend
TREE = Path(__file__).resolve().parents[2]
REFERENCE = TREE / "docs" / "reference.md"
DAG = "data_pipeline_lab"


def environment(config: Config) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LAB_HOME": str(config.home), "LANG": "C.UTF-8"}


def run_lab(config: Config, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `lab` with these words."""
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        env=environment(config) | variables,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def read_documented_keys(command: str) -> set[str]:
    """Return the keys that docs/reference.md gives to a command's answer."""
    text = REFERENCE.read_text("utf-8")
    (row,) = re.findall(rf"^\| `{command}` \| (.+) \|$", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row)))


def ask(config: Config, *words: str) -> dict[str, Any]:
    """Return the object that a command answers, which has the keys that are documented."""
    done = run_lab(config, *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.keys() == read_documented_keys(words[0])
    return found


def test_each_answer_is_one_object_with_the_documented_keys(lab: Lab, lab_config: Config) -> None:
    proof = ask(lab_config, "verify")
    assert proof["commit"] == lab.dataset().commit
    first = proof["data"][0]
    assert (first["name"], first["path"], first["files"]) == ("dataset", lab.dataset_path, None)
    assert {key: first[key] for key in first.keys() & proof.keys()}.items() <= proof.items()
    assert ask(lab_config, "env") == lab.env()
    assert ask(lab_config, "doctor")["stopped"] == []
    status = ask(lab_config, "status")
    assert {service["running"] for service in status["services"]} == {True}
    assert {"id": DAG, "bundle": "pipelines", "paused": False} in status["dags"]
    newest = [run.id for run in lab.runs_of("~")[:5]]  # of any DAG
    assert [run["id"] for run in status["runs"]] == newest
    assert status["dataset"]["commit"] == lab.dataset().commit
    assert [each["name"] for each in status["data"]][: 1 + len(lab.data_sets)] == [*lab.data_paths]


def test_a_run_that_fails_is_an_answer_too(lab: Lab, lab_config: Config) -> None:
    bad = '{"records": 200, "invalid_share": 0.06}'
    done = run_lab(lab_config, "run", DAG, "--conf", bad, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["state"]) == (22, False, "failed")
    assert answer.keys() == read_documented_keys("run") | {"error", "try", "log"}
    tasks = {task["id"]: task["state"] for task in answer["tasks"]}
    assert (tasks["generate"], tasks["validate"]) == ("success", "failed")
    assert "12 of 200 records are bad" in answer["error"]
    assert answer["error"] in done.stderr


def test_a_shell_completes_the_ids_of_the_dags(lab: Lab, lab_config: Config) -> None:
    words = {"_LAB_COMPLETE": "complete_bash", "COMP_WORDS": "lab run data", "COMP_CWORD": "2"}
    done = run_lab(lab_config, **words)
    assert done.stdout.split() == ["data_pipeline_lab", "dataset_pipeline"], done


def test_both_passwords_are_on_the_terminal_of_who_asks(lab: Lab, lab_config: Config) -> None:
    secrets = {lab.airflow_password, lab.git_password}
    asked = read_terminal(lab_config, "open", "--show-password")
    assert f"{lab.airflow_url}   Airflow   user {lab.airflow_user}   password " in asked
    assert f"{lab.git_page}   commits   user {lab.git_user}   password " in asked
    assert all(secret in asked for secret in secrets)
    shown = read_terminal(lab_config, "open")
    assert lab.git_page in shown
    assert not any(secret in shown for secret in secrets)


def read_terminal(config: Config, *words: str) -> str:
    """Run `lab` on a terminal of its own; return what it shows."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "lab", *words]
    with subprocess.Popen(command, env=environment(config), stdout=its) as started:
        os.close(its)
        shown = b""
        while block := read_block(ours):
            shown += block
        assert started.wait(60) == 0
    os.close(ours)
    return shown.decode()


def read_block(terminal: int) -> bytes:
    """Return what is on the terminal next, nothing once the program has closed it."""
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so where macOS reads an end
        return b""
