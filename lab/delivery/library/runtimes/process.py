"""Steps as processes of the machine that Airflow runs on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from setproctitle import setproctitle

from dataset_steps.contract import HOPELESS, OVERTAKEN, run_key
from dataset_steps.errors import StepError
from dataset_steps.workspace import LOCK_IS_HELD, acquire_lock, lock_file
from runtimes import (
    Step,
    again,
    bytes_from_quantity,
    memory_setting,
    out_of_memory_message,
    workspace_variables,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

EXECUTOR = None  # a process of this machine, as any other task
IMAGES = "STEP_IMAGES"  # the variable with the folder of the own images' environments
LOOK_SECONDS = 0.1  # between two looks at a step's memory


class ProcessOperator(BaseOperator):
    """Runs a command as a process of this machine, in an environment of its own.

    The process sees the lab's contract and its run, nothing of Airflow's environment. Exit code 65
    fails the task for good, and so does using more than `memory`; any other code but 0 is retried.
    """

    template_fields: Sequence[str] = ("argv", "variables")

    def __init__(self, *, step: Step, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.argv = list(step.argv)
        self.variables = dict(step.variables)
        self.memory = step.memory
        self.limit = bytes_from_quantity(step.memory) if step.memory else None

    def execute(self, context: Context) -> None:
        for one in again.list_first(self, context):
            one.run_again(context)
        again.run_until_published(
            self,
            context,
            # Here every image of the kit's is this machine. One of the project's own is not.
            is_of_its_image=lambda step: step.own is None,
            run=partial(self.run_process, context),
            run_other=lambda one: one.run_again(context),
        )

    def run_again(self, context: Context) -> None:
        """Run this step within the task of another one."""
        print(f"again: {' '.join(self.argv)}", flush=True)
        self.run_process(context)

    def run_process(self, context: Context, more: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Run the step's process with these variables, too.

        Return whether it ended with code 0, or was overtaken. Raise AirflowException for any other
        end.
        """
        place = Place.of_run(self, context)
        env = {**self.variables, **more, **place.variables}
        with (
            child(self.argv, {**place.contract, **env}, place.workspace, place.programs) as process,
            limiting_memory(process.pid, self.limit) as too_much,
        ):
            for line in process.lines:
                print(line, end="", flush=True)
            code = process.wait()
        if code == -signal.SIGKILL and too_much.is_set():
            what = memory_setting(context)
            raise AirflowFailException(out_of_memory_message(self.task_id, str(self.memory), what))
        if code == OVERTAKEN and self.step.reruns:
            return False
        self.require_success(code)
        return True

    def require_success(self, code: int) -> None:
        """Raise AirflowException unless the code is 0; AirflowFailException if no retry helps."""
        words = " ".join(self.argv)
        if code == HOPELESS:
            raise AirflowFailException(f"{words}: no retry can help, its error is above")
        if code:
            raise AirflowException(f"{words} ended with code {code}")


@dataclass(frozen=True)
class Place:
    """Where a run's steps work: the lab's contract, and the variables of the run's workspace."""

    contract: Mapping[str, str]
    variables: Mapping[str, str]
    workspace: Path | None  # the folder to work in, for commands that don't find it themselves
    programs: Path | None = None  # the folder of the commands of an image of one's own

    @classmethod
    def of_run(cls, operator: ProcessOperator, context: Context) -> Place:
        """Return the place of the context's run."""
        file, ti = Path(os.environ["STEP_ENVIRONMENT_FILE"]), context["ti"]
        contract = json.loads(file.read_text(encoding="utf-8"))
        folder = Path(contract["SHARED_DIR"], "runs", run_key(ti.dag_id, ti.run_id), "repository")
        step = operator.step
        variables = workspace_variables(step, step.data_sets, str(folder), contract["DATASET_PATH"])
        is_foreign = not step.is_the_kit_s and again.has_workspace(operator)
        programs = find_programs(step.own) if step.own else None
        return cls(contract, variables, folder if is_foreign else None, programs)


def find_programs(image: str) -> Path:
    """Return the folder of the commands of an image of one's own: those of its environment.

    Raise AirflowFailException when the lab has made none. A later one takes its place by a link,
    which is followed here: the step ends with the modules that it began with.
    """
    programs = Path(os.environ[IMAGES], image).resolve() / "bin"
    if not programs.is_dir():
        raise AirflowFailException(
            f"the lab has no environment of the image {image}: `lab up` makes it, from lab.toml"
        )
    return programs


@dataclass(frozen=True)
class Child:
    """A forked process: its output, and `wait`, which returns its exit code."""

    pid: int
    lines: Iterator[str]
    wait: Callable[[], int]


@contextlib.contextmanager
def child(
    argv: Sequence[str],
    env: dict[str, str],
    workspace: Path | None = None,
    programs: Path | None = None,
) -> Iterator[Child]:
    """Fork this process and run `argv` in the fork, in the workspace if there is one.

    The fork calls a console script's function instead of starting a new Python: the scheduler has
    imported what a step needs (executor.py of the kit's airflow_extensions), and imports are most
    of a short step's time. Any other command takes the fork's place, and so does each of an image
    of one's own: `programs` is the folder where its commands are looked for first.
    The child is killed when the block is left before it has ended.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_child(argv, env, workspace, write, programs)
    os.close(write)
    status: list[int] = []

    def wait() -> int:
        status.append(os.waitpid(pid, 0)[1])
        return os.waitstatus_to_exitcode(status[0])

    try:
        with os.fdopen(read, encoding="utf-8", errors="replace") as output:
            yield Child(pid, output, wait)
    finally:
        if not status:
            kill(pid)
            os.waitpid(pid, 0)


def kill(pid: int) -> None:
    """Kill the child and all that it started, unless they have ended already."""
    for end in (os.killpg, os.kill):  # a child that was just forked has no group of its own yet
        with contextlib.suppress(ProcessLookupError):
            end(pid, signal.SIGKILL)


@contextlib.contextmanager
def limiting_memory(pid: int, limit: int | None) -> Iterator[threading.Event]:
    """Kill the child as soon as it uses more than `limit` bytes, while the block runs.

    The event is set when it was killed. This needs no cgroup, which only root could make; so a
    child may exceed the limit for a moment, until the next look.
    """
    too_much, left = threading.Event(), threading.Event()
    if limit is None:
        yield too_much
        return

    def look() -> None:
        while not left.wait(LOOK_SECONDS):
            if used_memory(pid) > limit:
                too_much.set()
                kill(pid)

    watch = threading.Thread(target=look, name=f"memory of {pid}", daemon=True)
    watch.start()
    try:
        yield too_much
    finally:
        left.set()
        watch.join()


def used_memory(pid: int) -> int:
    """Return the bytes of unique memory (USS) of the child and all processes of its session.

    Memory that a fork still shares with Airflow's worker does not count.
    """
    total = 0
    for one in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):  # ended, or another user's
            if os.getsid(one) == pid:
                total += psutil.Process(one).memory_full_info().uss
    return total


# Airflow's own streams: if they were collected, they would close the descriptors they once had.
# And the lock of the workspace, which is held until the child has ended.
inherited: list[Any] = []


def run_child(
    argv: Sequence[str],
    env: dict[str, str],
    workspace: Path | None,
    output: int,
    programs: Path | None,
) -> NoReturn:
    """Run `argv` in this process and exit as it does; never return into Airflow's code."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # Airflow's own is a socket of its supervisor
        os.dup2(output, 1)
        os.dup2(output, 2)
        close_inherited()
        inherited.extend((sys.stdout, sys.stderr))
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace")
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(env["SHARED_DIR"])
        if workspace:
            enter(workspace)
        setproctitle(" ".join(argv))
        if programs:
            become_command_of(programs, argv)
        run_command(argv)
    except SystemExit as done:
        code = exit_code(done)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def close_inherited() -> None:
    """Close all but the standard descriptors: Airflow's sockets and its database, too."""
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with contextlib.suppress(OSError):
            if descriptor > 2:
                os.close(descriptor)


def enter(workspace: Path) -> None:
    """Make the workspace the working directory, and keep every other process out of it.

    The commands of the kit do so themselves, and are told here that it is done. The lock is free
    when this process and all that it has started have ended: a retry waits for what a killed
    attempt left behind. Raise StepError when there is no workspace, TemporaryError when another
    process stays in it.
    """
    if not workspace.is_dir():
        raise StepError(
            "the run's workspace is not there (any more): clear the run's pull, and with it all "
            "that comes after"
        )
    inherited.append(acquire_lock(lock_file(workspace.parent)))
    os.environ.update(LOCK_IS_HELD)
    os.chdir(workspace)


def run_command(argv: Sequence[str]) -> NoReturn:
    """Call a console script of this Python, or become any other command of PATH.

    Raise SystemExit as it does, and StepError when there is no such command.
    """
    if script := find_entry_point(argv[0]):
        sys.argv = list(argv)
        sys.exit(script())
    become_command(argv, "where the lab's steps find it, on PATH or into the lab's environment")


def become_command_of(programs: Path, argv: Sequence[str]) -> NoReturn:
    """Replace this process by a command of that folder, or by one of PATH."""
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    become_command(argv, "into the step's image, or name it as it is there")


def become_command(argv: Sequence[str], where: str) -> NoReturn:
    """Replace this process by a command of PATH. Raise StepError, with `where` to install it."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, which others don't expect
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606
    except FileNotFoundError as error:
        raise StepError(f"there is no command {argv[0]}: install it {where}") from error
    except OSError as error:
        raise StepError(f"the command {argv[0]} can't be run: {error.strerror}") from error


def exit_code(done: SystemExit) -> int:
    """Return the exit code as Python itself does: None is success, a text is an error."""
    if done.code is None or isinstance(done.code, int):
        return done.code or 0
    print(done.code, file=sys.stderr)
    return 1


def find_entry_point(script: str) -> Callable[[], Any] | None:
    """Return the function of a console script of this Python, or None if it is none."""
    entries = importlib.metadata.entry_points(group="console_scripts", name=script)
    main: Callable[[], Any] | None = next((entry.load() for entry in entries), None)
    return main


def task(task_id: str, step: Step, **options: Any) -> BaseOperator:
    """Return the task that runs a command in a fork of Airflow's worker.

    A fork leaves nothing but its run's workspace, which the steps remove themselves: `keep` has no
    effect here, nor has the template, or an image that is not one of lab.toml's. Raise ValueError
    when the memory is not a quantity.
    """
    return ProcessOperator(task_id=task_id, step=step, do_xcom_push=False, **options)
