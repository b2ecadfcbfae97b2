"""Steps as processes: the real operator, whose child calls a function of the test."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest
from kubernetes.utils.quantity import parse_quantity

TREE = Path(__file__).resolve().parents[2]
MIB = 1 << 20
# Allocates that many MiB, prints a line, and runs until it is killed.
GREEDY = "import time; taken = bytearray({0} << 20); print('has it', flush=True); time.sleep(60)"
CONTEXT: Any = {"dag": SimpleNamespace(fileloc="/bundles/x/dags/some_dag.py")}

Run = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the DAGs on the path, as for the DAG processor, with a new AIRFLOW_HOME."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.syspath_prepend(str(TREE / "dags"))
        yield


@pytest.fixture(scope="module")
def runtimes(dags: None) -> ModuleType:
    return importlib.import_module("runtimes")


@pytest.fixture(scope="module")
def process(dags: None) -> ModuleType:
    return importlib.import_module("runtimes.process")


@pytest.fixture
def run(
    process: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return a function that executes another one as a step, in a child process."""
    contract = {"SHARED_DIR": str(tmp_path), "PATH": os.environ["PATH"], "CONTRACT": "kept"}
    file = tmp_path / "steps.json"
    file.write_text(json.dumps(contract), "utf-8")
    monkeypatch.setenv("STEP_ENVIRONMENT_FILE", str(file))
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)

    def execute(main: Callable[[], object], memory: str | None = None) -> None:
        monkeypatch.setattr(process, "load_entry_point", lambda _: main)
        how: dict[str, Any] = {"template": "step", "memory": memory, "keep": True}
        step = process.task("a_step", ("a-step", "word"), {"RUN_ID": "r"}, **how)
        step.execute(CONTEXT)

    return execute


def read_last_line(capfd: pytest.CaptureFixture[str]) -> str:
    """Return the last line, the step's: Airflow first warns that none of its workers is at work."""
    return capfd.readouterr().out.splitlines()[-1]


def list_watch_threads() -> list[str]:
    """List the threads that watch a step's memory."""
    return [t.name for t in threading.enumerate() if t.name.startswith("memory of")]


# --- The process --------------------------------------------------------------------------------


def test_a_step_sees_the_contract_and_its_run_and_nothing_of_airflow(
    run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__SOME__SECRET", "hidden")

    def main() -> None:
        print(json.dumps([dict(os.environ), sys.argv, str(Path.cwd())]))

    run(main)
    env, argv, folder = json.loads(read_last_line(capfd))
    assert env == {
        "SHARED_DIR": str(tmp_path),
        "PATH": os.environ["PATH"],
        "CONTRACT": "kept",
        "RUN_ID": "r",
    }
    assert (argv, folder) == (["a-step", "word"], str(tmp_path))


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (65, "AirflowFailException", "a-step word: no retry can help"),
        (75, "AirflowException", "a-step word ended with code 75"),
        (1, "AirflowException", "a-step word ended with code 1"),
    ],
)
def test_what_a_step_s_exit_code_means(
    run: Run, process: ModuleType, code: int, error: str, text: str
) -> None:
    with pytest.raises(process.AirflowException, match=text) as caught:
        run(lambda: sys.exit(code))
    assert type(caught.value).__name__ == error


def test_a_step_that_raises_shows_it_and_is_tried_again(
    run: Run, process: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    def main() -> NoReturn:
        raise ValueError("the step's own words")

    with pytest.raises(process.AirflowException, match="ended with code 1"):
        run(main)
    assert "the step's own words" in capfd.readouterr().out


def test_a_step_that_is_left_behind_is_killed(process: ModuleType, tmp_path: Path) -> None:
    env = {"SHARED_DIR": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "load_entry_point", lambda _: lambda: time.sleep(60))
        with pytest.raises(KeyError), process.child(["a-step"], env) as child:
            raise KeyError
    assert not psutil.pid_exists(child.pid)


# --- Its memory ---------------------------------------------------------------------------------


def run_out_of_memory(
    run: Run, process: ModuleType, main: Callable[[], object], memory: str
) -> str:
    """Run a step that exceeds its limit and return the error's text."""
    with pytest.raises(process.AirflowFailException) as caught:
        run(main, memory)
    return str(caught.value)


def test_a_step_that_takes_too_much_is_ended_and_it_is_said_what_to_raise(
    run: Run, process: ModuleType
) -> None:
    def main() -> None:
        exec(GREEDY.format(120))  # noqa: S102

    assert run_out_of_memory(run, process, main, "100Mi") == (
        "OOMKilled: a_step needed more than its limit of 100Mi; raise memory= in dags/some_dag.py"
    )
    assert not list_watch_threads()


def test_what_a_step_starts_counts_and_is_ended_with_it(
    run: Run, process: ModuleType, tmp_path: Path
) -> None:
    """Each of the two is below the limit, both together are above it."""

    def main() -> None:
        words = [sys.executable, "-c", GREEDY.format(60)]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = [subprocess.Popen(words, **quiet) for _ in range(2)]
        (tmp_path / "pids").write_text(" ".join(str(p.pid) for p in started), "utf-8")
        started[0].wait()

    assert run_out_of_memory(run, process, main, "100Mi").startswith("OOMKilled")
    pids = [int(word) for word in (tmp_path / "pids").read_text("utf-8").split()]
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
    assert len(pids) == 2
    assert not alive


def test_a_step_within_its_limit_is_left_alone(
    run: Run,
    process: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    looks = record_looks(process, monkeypatch)

    def main() -> None:
        taken = bytearray(50 * MIB)
        time.sleep(0.3)
        print(len(taken))

    run(main, "100Mi")
    assert read_last_line(capfd) == str(50 * MIB)
    assert max(looks) > 50 * MIB
    assert not list_watch_threads()


def test_what_a_step_shares_with_airflow_s_worker_is_not_its_own(
    run: Run, process: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_memory = os.urandom(200 * MIB)
    looks = record_looks(process, monkeypatch)

    def main() -> None:
        assert worker_memory.count(b"x")  # reads every page
        time.sleep(0.3)

    run(main, "100Mi")
    assert looks


def record_looks(process: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record what each look finds; return the list."""
    taken: Callable[[int], int] = process.used_memory
    found: list[int] = []

    def look(pid: int) -> int:
        found.append(taken(pid))
        return found[-1]

    monkeypatch.setattr(process, "used_memory", look)
    return found


def test_a_step_that_is_killed_by_somebody_else_is_tried_again(
    run: Run, process: ModuleType
) -> None:
    """A kill from outside has nothing to do with the limit."""

    def main() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(process.AirflowException, match="ended with code -9") as caught:
        run(main, "100Mi")
    assert not isinstance(caught.value, process.AirflowFailException)


def test_without_a_limit_nobody_looks(
    run: Run, process: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = record_looks(process, monkeypatch)
    run(lambda: time.sleep(0.1))
    assert not looks


# --- Amounts of memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["1", "1024", "256Mi", "256M", "1.5Gi", ".5G", "2k", "2Ki", "1T", "1Ti", "1P", "1Ei"]
)
def test_an_amount_is_what_it_is_to_kubernetes(runtimes: ModuleType, text: str) -> None:
    assert runtimes.bytes_from_quantity(text) == int(parse_quantity(text))


@pytest.mark.parametrize(
    "text",
    ["", "Mi", "256MB", "256 Mi", "256mi", "-1Mi", "1,5Gi", "0", "0.5", "100m", "1e3", "٣Mi"],
)
def test_what_is_no_amount_is_no_dag(runtimes: ModuleType, process: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="no amount of memory: write it as in 256Mi"):
        runtimes.bytes_from_quantity(text)
    if text:
        with pytest.raises(ValueError, match="no amount of memory"):
            process.task("t", ("a-step",), {}, template="step", memory=text, keep=False)
