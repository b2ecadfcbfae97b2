"""The command line from nothing to nothing: up, up again, killed in between, down."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.backends.embedded.services.seaweedfs import SOCKET_FOLDERS
from lab.client.runs import STAGING_BUNDLE
from lab.config import Config
from lab.delivery.bundle import find_dag_files
from lab.home import ports, processes, state

ENV_KEYS = {
    "backend",
    "git_url",
    "git_user",
    "git_password",
    "git_page",
    "s3_endpoint",
    "s3_region",
    "s3_bucket",
    "s3_access_key",
    "s3_secret_key",
    "s3_session_token",
    "dataset_name",
    "dataset_path",
    "airflow_url",
    "airflow_user",
    "airflow_password",
}
CSV = "id,city,amount\n1,Oslo,10\n2,Århus,20\n7,Turku,30\n"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """Yield the configuration of a lab whose processes are ended, whatever a test leaves."""
    config = Config(home=tmp_path_factory.mktemp("lifecycle") / "lab")
    yield config
    processes.terminate_all(config)


def run_lab(config: Config, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `lab ARGUMENTS` in an environment of its own."""
    return run_python(config, "-m", "lab", *arguments)


def run_python(config: Config, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Python's in an environment of its own."""
    command, env = [sys.executable, *words], environment(config)
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def environment(config: Config) -> dict[str, str]:
    """Return the environment of a command for this lab, without the tests' own session of nox."""
    kept = {name: text for name, text in os.environ.items() if name != "NOX_CURRENT_SESSION"}
    return {**kept, "LAB_HOME": str(config.home), "LAB_BACKEND": "embedded"}


def read_pids(config: Config) -> dict[str, int]:
    """Return the process id of each service."""
    return {path.stem: int(path.read_text()) for path in config.run.glob("*.pid")}


def list_sockets(config: Config) -> list[Path]:
    """List SeaweedFS's sockets outside `.lab/` that belong to this lab's ports."""
    known = state.read_state(config)
    numbers = (
        {str(n + more) for n in known.ports.values() for more in (0, 10_000)} if known else set()
    )
    found = [p for folder in SOCKET_FOLDERS for p in folder.glob("seaweedfs-*.sock")]
    return [path for path in found if path.stem.rpartition("-")[2] in numbers]


def test_up_killed_at_any_moment_is_completed_by_the_next(config: Config, tmp_path: Path) -> None:
    csv = tmp_path / "own data.csv"
    csv.write_text(CSV, encoding="utf-8")
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    env = environment(config)
    command = [sys.executable, "-m", "lab", "up", "--dataset", str(csv)]
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        started = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        # The moment of the kill, not a wait. Ctrl-C is for a command that has begun.
        time.sleep(chance.uniform(3 if number == signal.SIGINT else 0.3, 9))
        started.send_signal(number)
        _, errors = started.communicate(timeout=60)
        assert "Traceback" not in errors
    done = run_lab(config, "up", "--dataset", str(csv))
    assert done.returncode == 0, done.stderr
    check_all_dags_known(config)


def check_all_dags_known(config: Config) -> None:
    """Check that what `up` has published can run as soon as it has ended."""
    lines = [line.split(maxsplit=1) for line in run_lab(config, "status").stdout.splitlines()]
    (names,) = (words[1] for words in lines if words[0] == STAGING_BUNDLE)
    assert [f"{name}.py" for name in names.split(", ")] == find_dag_files(config)


def test_up_again_changes_nothing(config: Config) -> None:
    before = read_pids(config)
    assert run_lab(config, "up").returncode == 0
    assert read_pids(config) == before


def test_another_choice_for_a_lab_that_is_there_is_refused(config: Config) -> None:
    done = run_lab(config, "up", "--database", "postgresql")
    assert done.returncode != 0
    # As root, PostgreSQL is refused before that.
    why = "root" if os.geteuid() == 0 else "this lab was made with --database sqlite"
    assert why in done.stderr.partition("\n")[0]


def test_status_doctor_env_and_logs_say_what_is_there(config: Config) -> None:
    shown = run_lab(config, "status")
    assert shown.returncode == 0, shown.stderr
    services, _, _ = shown.stdout.partition("DAGs:")
    assert services.count("running") == 6
    examined = run_lab(config, "doctor")
    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert examined.stdout.count(" port ") == 13
    values = json.loads(run_lab(config, "env", "--json").stdout)
    assert set(values) == ENV_KEYS
    assert values["dataset_path"] == "datasets/own data.csv"
    assert "uvicorn" in run_lab(config, "logs", "gitserver").stdout.lower()


def test_a_persons_own_csv_goes_through_the_pipeline(config: Config) -> None:
    done = run_lab(config, "run", "dataset_pipeline")
    assert done.returncode == 0, done.stderr
    (line,) = (s for s in run_lab(config, "status").stdout.splitlines() if "manual__" in s)
    assert line.split()[:2] == ["success", "dataset_pipeline"]
    proof = json.loads(run_lab(config, "verify", "--json").stdout)
    assert (proof["ok"], proof["parents_checked"]) == (True, 1)
    assert proof["object"].startswith("s3://lab-datasets/store/files/md5/")
    assert proof["run_id"].startswith("manual__")


def test_a_failing_run_has_an_exit_code_of_its_own(config: Config) -> None:
    assert run_lab(config, "run", "no_such_dag").returncode == 20
    assert run_lab(config, "run", "dataset_pipeline", "--conf", "[]").returncode == 21
    assert run_lab(config, "verify", "0" * 40).returncode == 24


def test_a_dead_service_is_told_and_started_again(config: Config) -> None:
    os.kill(read_pids(config)["seaweedfs"], signal.SIGKILL)
    told = run_lab(config, "status")
    assert told.returncode == 16
    assert "lab up" in told.stderr
    assert run_lab(config, "up").returncode == 0
    assert run_lab(config, "status").returncode == 0


def test_what_an_older_kit_has_started_is_started_anew(config: Config) -> None:
    before = read_pids(config)
    program = "from lab.home import code; code.digest_code = lambda _: 'newer'"
    done = run_python(config, "-c", f"{program}; from lab.__main__ import main; main()", "up")
    assert done.returncode == 0, done.stderr
    after = read_pids(config)
    assert [name for name in before if before[name] == after[name]] == ["seaweedfs"]
    names = "gitserver, airflow-api-server, airflow-scheduler, airflow-dag-processor"
    assert f"started anew, since the kit or a setting has changed: {names}" in done.stdout


def test_down_leaves_no_process_no_port_and_no_socket(config: Config) -> None:
    known = state.read_state(config)
    assert known is not None
    os.kill(read_pids(config)["seaweedfs"], signal.SIGKILL)
    assert run_lab(config, "down").returncode == 0
    assert not processes.list_processes(config)
    assert not list_sockets(config)
    assert not [number for number in known.ports.values() if not ports.is_free(number)]
    assert config.home.exists()


def test_a_lab_that_was_ended_comes_back_with_its_data(config: Config) -> None:
    assert run_lab(config, "up").returncode == 0
    proof = json.loads(run_lab(config, "verify", "--json").stdout)
    assert proof["parents_checked"] == 1


def test_purge_leaves_nothing_at_all(config: Config) -> None:
    assert run_lab(config, "down", "--purge").returncode == 0
    assert not config.home.exists()
    assert not processes.list_processes(config)
    assert run_lab(config, "down").returncode == 0
    assert not config.home.exists()
