"""Steps as processes of the machine that Airflow runs on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from setproctitle import setproctitle

from runtimes import HOPELESS

if TYPE_CHECKING:
    from airflow.sdk import Context

EXECUTOR = None  # a process of this machine, as any other task


class ProcessOperator(BaseOperator):
    """Runs a console script as a process of this machine, in an environment of its own.

    The process sees the lab's contract and its run, nothing of Airflow's environment. Exit code 65
    fails the task for good, any other but 0 is tried again.
    """

    template_fields: Sequence[str] = ("variables",)

    def __init__(self, *, argv: Sequence[str], variables: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.argv = list(argv)
        self.variables = variables

    def execute(self, context: Context) -> None:  # noqa: ARG002
        contract = json.loads(Path(os.environ["STEP_ENVIRONMENT_FILE"]).read_text(encoding="utf-8"))
        with child(self.argv, {**contract, **self.variables}) as (lines, ended):
            for line in lines:
                print(line, end="", flush=True)
            code = ended()
        if code == HOPELESS:
            raise AirflowFailException(
                f"{' '.join(self.argv)}: no retry can help, its error is above"
            )
        if code:
            raise AirflowException(f"{' '.join(self.argv)} ended with code {code}")


@contextlib.contextmanager
def child(
    argv: Sequence[str], env: dict[str, str]
) -> Iterator[tuple[Iterator[str], Callable[[], int]]]:
    """A fork of this process that runs `argv`: its output, and what awaits its exit code.

    The fork calls the console script's function instead of starting a new Python: the scheduler has
    imported what a step needs (lab/airflow_extensions/executor.py), and imports are most of a short
    step's time.
    The child is killed when the block is left before it has ended.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(argv, env, write)
    os.close(write)
    status: list[int] = []

    def ended() -> int:
        status.append(os.waitpid(pid, 0)[1])
        return os.waitstatus_to_exitcode(status[0])

    try:
        with os.fdopen(read, encoding="utf-8", errors="replace") as output:
            yield output, ended
    finally:
        if not status:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# Airflow's own streams: were they collected, they would close the descriptors they once had.
inherited: list[Any] = []


def become(argv: Sequence[str], env: dict[str, str], output: int) -> NoReturn:
    """This process runs `argv` and exits as it does; it never returns into Airflow's code."""
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
        main_of(argv[0])()
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
    """Only the standard descriptors are open: not Airflow's sockets, nor its database."""
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with contextlib.suppress(OSError):
            if descriptor > 2:
                os.close(descriptor)


def main_of(script: str) -> Callable[[], object]:
    """The function behind a console script."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=script)
    main: Callable[[], object] = entry.load()
    return main


def task(
    task_id: str,
    argv: Sequence[str],
    variables: dict[str, str],
    *,
    template: str,  # noqa: ARG001
    memory: str | None,  # noqa: ARG001
    keep: bool,  # noqa: ARG001
    **options: Any,
) -> BaseOperator:
    """The task that runs a console script in a fork of Airflow's worker."""
    return ProcessOperator(
        task_id=task_id, argv=argv, variables=variables, do_xcom_push=False, **options
    )
