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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from setproctitle import setproctitle

from runtimes import HOPELESS, bytes_from_quantity, memory_setting, out_of_memory_message

if TYPE_CHECKING:
    from airflow.sdk import Context

EXECUTOR = None  # a process of this machine, as any other task
LOOK_SECONDS = 0.1  # between two looks at a step's memory


class ProcessOperator(BaseOperator):
    """Runs a console script as a process of this machine, in an environment of its own.

    The process sees the lab's contract and its run, nothing of Airflow's environment. Exit code 65
    fails the task for good, and so does using more than `memory`; any other code but 0 is retried.
    """

    template_fields: Sequence[str] = ("variables",)

    def __init__(
        self, *, argv: Sequence[str], variables: dict[str, str], memory: str | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.argv = list(argv)
        self.variables = variables
        self.memory = memory
        self.limit = bytes_from_quantity(memory) if memory else None

    def execute(self, context: Context) -> None:
        contract = json.loads(Path(os.environ["STEP_ENVIRONMENT_FILE"]).read_text(encoding="utf-8"))
        with (
            child(self.argv, {**contract, **self.variables}) as process,
            limiting_memory(process.pid, self.limit) as too_much,
        ):
            for line in process.lines:
                print(line, end="", flush=True)
            code = process.wait()
        if code == -signal.SIGKILL and too_much.is_set():
            what = memory_setting(context)
            raise AirflowFailException(out_of_memory_message(self.task_id, str(self.memory), what))
        if code == HOPELESS:
            raise AirflowFailException(
                f"{' '.join(self.argv)}: no retry can help, its error is above"
            )
        if code:
            raise AirflowException(f"{' '.join(self.argv)} ended with code {code}")


@dataclass(frozen=True)
class Child:
    """A forked process: its output, and `wait`, which returns its exit code."""

    pid: int
    lines: Iterator[str]
    wait: Callable[[], int]


@contextlib.contextmanager
def child(argv: Sequence[str], env: dict[str, str]) -> Iterator[Child]:
    """Fork this process and run `argv` in the fork.

    The fork calls the console script's function instead of starting a new Python: the scheduler has
    imported what a step needs (executor.py of the kit's airflow_extensions), and imports are most
    of a short step's time.
    The child is killed when the block is left before it has ended.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_child(argv, env, write)
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
inherited: list[Any] = []


def run_child(argv: Sequence[str], env: dict[str, str], output: int) -> NoReturn:
    """Run `argv` in this process and exit as it does; never return into Airflow's code."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
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
        sys.argv = list(argv)
        setproctitle(" ".join(argv))
        load_entry_point(argv[0])()
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
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


def load_entry_point(script: str) -> Callable[[], object]:
    """Return the function of a console script."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=script)
    main: Callable[[], object] = entry.load()
    return main


def task(
    task_id: str,
    argv: Sequence[str],
    variables: dict[str, str],
    *,
    template: str,  # noqa: ARG001
    memory: str | None,
    keep: bool,  # noqa: ARG001
    **options: Any,
) -> BaseOperator:
    """Return the task that runs a console script in a fork of Airflow's worker.

    A fork leaves nothing but its run's workspace, which the steps remove themselves: `keep` has no
    effect here.
    """
    return ProcessOperator(
        task_id=task_id,
        argv=argv,
        variables=variables,
        memory=memory,
        do_xcom_push=False,
        **options,
    )
