"""A run that can't begin says why at once, and what to type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.config import Config
from lab.errors import DagError, RunError
from lab.lab import Lab

pytestmark = pytest.mark.variation  # Airflow's API says the same on each backend
DAG = "sample_etl"  # one run at once
SECONDS = 120


@contextmanager
def paused(lab: Lab) -> Iterator[None]:
    """Pause the DAG as its switch in the UI does, until the block ends."""
    set_paused(lab, True)
    try:
        yield
    finally:
        set_paused(lab, False)


def set_paused(lab: Lab, wanted: bool) -> None:
    from airflow_client.client import DAGApi, DAGPatchBody

    with lab.airflow() as client:
        DAGApi(client).patch_dag(DAG, DAGPatchBody(is_paused=wanted))


def is_paused(lab: Lab) -> bool:
    from airflow_client.client import DAGApi

    with lab.airflow() as client:
        return bool(DAGApi(client).get_dag(DAG).is_paused)


def start_command(config: Config, *words: str) -> subprocess.Popen[str]:
    """Start `lab` with these words, as a person types them."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *words],
        env={"PATH": os.environ["PATH"], "LAB_HOME": str(config.home), "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def run_command(config: Config, *words: str) -> tuple[int, str, str]:
    """Run `lab` with these words; return its exit code and its output."""
    with start_command(config, *words) as command:
        out, err = command.communicate(timeout=SECONDS)
    return command.returncode, out, err


def test_a_paused_dag_starts_no_run_before_it_is_unpaused(lab: Lab, lab_config: Config) -> None:
    before = [run.id for run in lab.runs_of(DAG)]
    with paused(lab):
        with pytest.raises(DagError, match=f"{DAG} is paused: a run would wait"):
            lab.trigger(DAG)
        code, _, err = run_command(lab_config, "run", DAG)
        assert code == DagError.exit_code
        assert f"try: lab run {DAG} --unpause (or the switch at {lab.airflow_url}/dags/" in err
        _, out, _ = run_command(lab_config, "status")
        assert f"{DAG} (paused)" in out
        assert f"{DAG} is paused: lab unpause {DAG} ends that" in out
        assert [run.id for run in lab.runs_of(DAG)] == before

        code, out, err = run_command(lab_config, "run", DAG, "--unpause", "--json")
        answer = json.loads(out)
        assert (code, answer["ok"], answer["state"]) == (0, True, "success")
        assert [run.id for run in lab.runs_of(DAG)] == [answer["id"], *before]
        assert f"Run {DAG}" in err


def test_a_run_that_waits_says_what_for(lab: Lab, lab_config: Config) -> None:
    """First for its DAG, which is paused meanwhile; the next run for the first one's end."""
    with start_command(lab_config, "run", DAG) as command:
        assert command.stdout
        lines = (line.strip() for line in iter(command.stdout.readline, ""))
        run = lab.find_run(DAG, next(lines))
        assert run
        wait_for_line(lines, "running")
        with paused(lab):
            told = wait_for_line(lines, "paused")
            assert told == f"{DAG} is paused: this run waits until you type: lab unpause {DAG}"
            with pytest.raises(RunError, match=rf"not end in 0 s: it is running, and {DAG} is pau"):
                lab.follow(run, timeout=0)
            following = lab.trigger(DAG, unpause=True)
            with pytest.raises(RunError) as caught:
                lab.follow(following, timeout=0)
        assert f"it is queued; 1 of at most 1 runs of {DAG} are running" in caught.value.what
        assert caught.value.fix == "it begins when another one ends: lab status shows them"
        wait_for_line(lines, f"{DAG} is paused no more: this run goes on")
        assert list(lines)
        assert command.wait(SECONDS) == 0
    lab.follow(following)


def wait_for_line(lines: Iterator[str], text: str) -> str:
    """Return the next line that holds the text; fail when the command ends before."""
    found = next((line for line in lines if text in line), None)
    assert found is not None, f"the command has ended and did not say: {text}"
    return found


def test_a_dag_is_unpaused_by_a_command(lab: Lab, lab_config: Config) -> None:
    with paused(lab):
        code, out, _ = run_command(lab_config, "unpause", DAG)
        assert (code, out) == (0, f"{DAG} is not paused now: what waits begins\n")
        assert not is_paused(lab)
    code, _, err = run_command(lab_config, "unpause", "no_such_dag")
    assert code == DagError.exit_code
    assert "there is no DAG 'no_such_dag'" in err
