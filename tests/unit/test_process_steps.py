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
from airflow.sdk import DAG, task
from kubernetes.utils.quantity import parse_quantity

from dataset_steps import contract
from dataset_steps.workspace import try_lock
from tests.support.dag_tasks import KIT, RUN_ID, dags_on_path, make_context, render_task

MIB = 1 << 20
# Allocates that many MiB, prints a line, and runs until it is killed.
GREEDY = "import time; taken = bytearray({0} << 20); print('has it', flush=True); time.sleep(60)"
CONTEXT: Any = {
    "dag": SimpleNamespace(fileloc="/bundles/x/dags/some_dag.py"),
    "ti": SimpleNamespace(dag_id="some_dag", run_id="r", task_id="a_step", try_number=1),
}

Run = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the DAGs on the path, as for the DAG processor, with a new AIRFLOW_HOME."""
    with dags_on_path(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def runtimes(dags: None) -> ModuleType:
    return importlib.import_module("runtimes")


@pytest.fixture(scope="module")
def process(dags: None) -> ModuleType:
    return importlib.import_module("runtimes.process")


@pytest.fixture
def run(
    process: ModuleType, runtimes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return a function that executes another one as a step, in a child process."""
    given = {
        "SHARED_DIR": str(tmp_path),
        "DATASET_PATH": "data/all.csv",
        "PATH": os.environ["PATH"],
        "CONTRACT": "kept",
    }
    file = tmp_path / "steps.json"
    file.write_text(json.dumps(given), "utf-8")
    monkeypatch.setenv("STEP_ENVIRONMENT_FILE", str(file))
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)

    def execute(main: Callable[[], object], memory: str | None = None) -> None:
        monkeypatch.setattr(process, "find_entry_point", lambda _: main)
        how: dict[str, Any] = {"memory": memory, "data_sets": {"report": "out/a report"}}
        step = runtimes.Step(("a-step", "word"), {"RUN_ID": "r"}, **how)
        process.task("a_step", step).execute(CONTEXT)

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
    workspace = tmp_path / "runs" / contract.run_key("some_dag", "r") / "repository"
    assert env == {
        "SHARED_DIR": str(tmp_path),
        "DATASET_PATH": "data/all.csv",
        "PATH": os.environ["PATH"],
        "CONTRACT": "kept",
        "RUN_ID": "r",
        "DATA_SETS": '{"report": "out/a report"}',
        "DATASET_NAME": "dataset",
        "WORKSPACE": str(workspace),
        "DATA_DATASET": f"{workspace}/data/all.csv",
        "DATA_REPORT": f"{workspace}/out/a report",
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
        patch.setattr(process, "find_entry_point", lambda _: lambda: time.sleep(60))
        with pytest.raises(KeyError), process.child(["a-step"], env) as child:
            raise KeyError
    assert not psutil.pid_exists(child.pid)


def test_a_step_reads_nothing_of_airflow_s_supervisor(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    run(lambda: print(os.read(0, 9)))
    assert read_last_line(capfd) == "b''"


@pytest.mark.parametrize(("said", "code"), [(None, 0), (0, 0), (3, 3), ("wrong", 1)])
def test_what_a_console_script_returns_is_its_exit_code(
    run: Run, process: ModuleType, said: object, code: int
) -> None:
    if code == 0:
        run(lambda: said)
    else:
        with pytest.raises(process.AirflowException, match=f"ended with code {code}"):
            run(lambda: said)


# --- Any command, in the run's workspace ----------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the workspace of a run of `some_dag` that has pulled."""
    given = {"SHARED_DIR": str(tmp_path), "DATASET_PATH": "all.csv", "PATH": os.environ["PATH"]}
    file = tmp_path / "steps.json"
    file.write_text(json.dumps(given), "utf-8")
    monkeypatch.setenv("STEP_ENVIRONMENT_FILE", str(file))
    workspace = tmp_path / "runs" / contract.run_key("some_dag", RUN_ID) / "repository"
    workspace.mkdir(parents=True)
    return workspace


Make = Callable[..., Any]


@pytest.fixture
def make(process: ModuleType, runtimes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes the task of a step. The kit's commands print their words."""
    find: Callable[[str], Any] = process.find_entry_point
    found = {KIT: lambda: print("kit:", *sys.argv[1:], os.environ.get("AGAIN", ""))}
    monkeypatch.setattr(process, "find_entry_point", lambda name: found.get(name) or find(name))

    def make_task(task_id: str, *argv: str, **how: Any) -> Any:
        return process.task(task_id, runtimes.Step(argv, {}, **how))

    return make_task


def pipeline(make: Make, *argv: str, **how: Any) -> Any:
    """Return a DAG whose `work` runs the command between a pull and a publish."""
    with DAG("some_dag") as dag:
        (
            make("pull", KIT, "pull", "orders", role="pull")
            >> make("work", *argv, **how)
            >> make("publish", KIT, "publish", "orders", role="publish", reruns=True)
        )
    return dag


def execute(dag: Any, task_id: str = "work", **how: Any) -> None:
    context = make_context(dag, task_id, **how)
    render_task(context).execute(context)


def test_any_command_of_path_runs_in_the_workspace(
    make: Make, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It gets each word as it is, and no shell looks at it."""
    code = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ['WORKSPACE_LOCK'])"
    execute(pipeline(make, sys.executable, "-c", code, "a b", "$HOME", "*"))
    assert read_last_line(capfd) == f"{bench} ['a b', '$HOME', '*'] held"


def test_the_workspace_is_locked_while_a_command_works(make: Make, bench: Path) -> None:
    """A retry waits for what a killed attempt left behind, children included."""
    lock = bench.parent.with_name(bench.parent.name + ".lock")
    script = "sleep 60 > /dev/null 2>&1 & echo $! > child"
    execute(pipeline(make, "sh", "-c", script))
    assert try_lock(lock) is None
    child = psutil.Process(int((bench / "child").read_text("utf-8")))
    child.kill()
    psutil.wait_procs([child], 10)
    found = try_lock(lock)
    assert found
    found.close()


def test_the_kit_s_commands_find_the_workspace_themselves(
    make: Make, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The lock that somebody else holds is theirs to wait for."""
    lock = try_lock(bench.parent.with_name(bench.parent.name + ".lock"))
    assert lock
    with lock:
        execute(pipeline(make, KIT, "modify", repeatable=True))
    assert read_last_line(capfd).strip() == "kit: modify"


def test_a_step_before_any_pull_has_no_workspace(
    make: Make, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with DAG("some_dag") as dag:
        make("work", "pwd")
    execute(dag)
    assert read_last_line(capfd) == str(bench.parents[2])


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("no-such-command", "x"), "there is no command no-such-command: install it"),
        (("/etc/passwd",), "the command /etc/passwd can't be run: Permission denied"),
    ],
)
def test_a_command_that_can_not_run_is_not_tried_again(
    make: Make,
    process: ModuleType,
    bench: Path,
    capfd: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    error: str,
) -> None:
    with pytest.raises(process.AirflowFailException, match="no retry can help"):
        execute(pipeline(make, *argv))
    assert read_last_line(capfd).startswith(f"error: {error}")


def test_a_workspace_that_is_gone_is_not_worked_in(
    make: Make, process: ModuleType, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.rmdir()
    with pytest.raises(process.AirflowFailException):
        execute(pipeline(make, "touch", "file"))
    assert read_last_line(capfd).startswith("error: the run's workspace is not there")


# --- Steps that run again -------------------------------------------------------------------------


def test_a_retry_starts_afresh(make: Make, bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    execute(pipeline(make, "echo", "work"), attempt=2)
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()[-3:]]
    assert lines == ["again: dataset-steps pull orders --again", "kit: pull orders --again", "work"]


def test_a_retry_fails_with_the_step_that_fails_again(
    make: Make, process: ModuleType, monkeypatch: pytest.MonkeyPatch, bench: Path
) -> None:
    monkeypatch.setattr(process, "find_entry_point", lambda _: lambda: 75)
    with pytest.raises(process.AirflowException, match="pull orders --again ended with code 75"):
        execute(pipeline(make, "touch", "file"), attempt=2)
    assert not (bench / "file").exists()


def test_publish_runs_the_steps_again_itself(
    make: Make, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever their image is: here it is this machine."""
    execute(pipeline(make, "echo", "work", template="model", image="elsewhere/x:1"), "publish")
    told = json.loads(read_last_line(capfd).partition("orders ")[2])
    assert told == [{"argv": ["echo", "work"], "variables": {}}]


def test_a_publish_that_nobody_can_help_says_why(
    make: Make, process: ModuleType, monkeypatch: pytest.MonkeyPatch, bench: Path
) -> None:
    @task
    def tidy() -> None: ...

    monkeypatch.setattr(process, "find_entry_point", lambda _: lambda: contract.OVERTAKEN)
    with DAG("some_dag") as dag:
        start = make("pull", KIT, "pull", "orders", role="pull")
        end = make("publish", KIT, "publish", "orders", role="publish", reruns=True)
        start >> tidy() >> end
    with pytest.raises(process.AirflowFailException, match="tidy is no step"):
        execute(dag, "publish")
    with pytest.raises(process.AirflowException, match="ended with code 80") as caught:
        execute(pipeline(make, KIT, "odd", repeatable=True))
    assert type(caught.value) is process.AirflowException


# --- A step of an image of one's own --------------------------------------------------------------


@pytest.fixture
def image(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the commands of the image `steps`: that to which its name leads."""
    images = bench.parents[2] / "images"
    programs = images / ".built" / "steps" / "1" / "bin"
    programs.mkdir(parents=True)
    (images / "steps").symlink_to(programs.parent)
    monkeypatch.setenv(process_variable(), str(images))
    return programs


def process_variable() -> str:
    return str(importlib.import_module("runtimes.process").IMAGES)


def write_command(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


@pytest.mark.parametrize("name", ["python", "clean", KIT])
def test_the_commands_of_an_own_image_are_its_environment_s(
    make: Make, bench: Path, image: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Even those that the lab has, too; and none of them is the scheduler's."""
    write_command(image, name, 'echo "$0" "$1" "$PATH" $(pwd)')
    execute(pipeline(make, name, "a b", own="steps"))
    place = image.parents[4] if name == KIT else bench  # the kit's find the workspace themselves
    path = f"{image}{os.pathsep}{os.environ['PATH']}"
    assert read_last_line(capfd) == f"{image / name} a b {path} {place}"


def test_what_an_own_image_lacks_is_the_lab_s(
    make: Make, image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(pipeline(make, "echo", "work", own="steps"))
    assert read_last_line(capfd) == "work"


def test_a_command_that_an_own_image_lacks_is_not_tried_again(
    make: Make, process: ModuleType, image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(process.AirflowFailException, match="no retry can help"):
        execute(pipeline(make, "no-such-command", own="steps"))
    assert read_last_line(capfd).startswith(
        "error: there is no command no-such-command: install it into the step's image"
    )


def test_an_image_that_the_lab_has_not_made_is_named(
    make: Make, process: ModuleType, image: Path
) -> None:
    with pytest.raises(process.AirflowFailException, match="no environment of the image other"):
        execute(pipeline(make, "echo", own="other"))


def test_an_environment_that_is_replaced_meanwhile_stays_the_step_s(
    make: Make, image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    link = image.parents[3] / "steps"
    write_command(image, "clean", f"rm {link}; which clean")
    execute(pipeline(make, "clean", own="steps"))
    assert read_last_line(capfd) == str(image / "clean")


def test_an_own_step_that_takes_too_much_is_ended(
    make: Make, process: ModuleType, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)
    write_command(image, "greedy", f'exec {sys.executable} -c "{GREEDY.format(120)}"')
    with pytest.raises(process.AirflowFailException, match="OOMKilled: work needed more"):
        execute(pipeline(make, "greedy", own="steps", memory="100Mi"))


def test_publish_does_not_run_the_steps_of_an_own_image_itself(
    make: Make, image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(pipeline(make, "echo", "work", own="steps"), "publish")
    assert read_last_line(capfd).strip() == "kit: publish orders"


def be_overtaken(process: ModuleType, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Have a publish be overtaken that many times; then it prints whether steps have run."""
    left = Path(os.environ["STEP_ENVIRONMENT_FILE"]).with_name("left")
    left.write_text("x" * times)

    def publish() -> int:
        if count := len(left.read_text()):
            left.write_text("x" * (count - 1))
            return contract.OVERTAKEN
        print("published", os.environ.get(contract.HAVE_RUN), os.environ.get(contract.AGAIN))
        return 0

    monkeypatch.setattr(process, "find_entry_point", lambda name: publish if name == KIT else None)


@pytest.mark.parametrize("times", [1, 2])
def test_a_publish_that_was_overtaken_has_the_own_steps_run_again(
    make: Make,
    process: ModuleType,
    image: Path,
    bench: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    times: int,
) -> None:
    """In the image's environment, and in their order; then it publishes what they made."""
    write_command(image, "clean", "echo cleaned >> done; echo cleaned")
    be_overtaken(process, monkeypatch, times)
    execute(pipeline(make, "clean", own="steps"), "publish")
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line in ("again: clean", "cleaned")] == [
        *("again: clean", "cleaned")
    ] * times
    assert lines[-1] == "published true None"
    assert (bench / "done").read_text() == "cleaned\n" * times


def test_an_own_step_that_fails_when_it_runs_again_fails_the_publish(
    make: Make, process: ModuleType, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_command(image, "clean", "exit 3")
    be_overtaken(process, monkeypatch, 1)
    with pytest.raises(process.AirflowException, match="clean ended with code 3"):
        execute(pipeline(make, "clean", own="steps"), "publish")


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
            process.task("t", runtimes.Step(("a-step",), {}, memory=text))
