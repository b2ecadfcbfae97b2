"""Start steps as forks of a process that has imported what they need.

This is how the embedded backend starts them, too (lab/delivery/library/runtimes/process.py):
importing DVC takes 0.6 s and scikit-learn 1 s, most of a short step's time. `Run.start` in
stores.py takes the console script itself where a test asks for a fresh process.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import NoReturn
from unittest import mock

PRELOADED = (
    "__main__",  # pytest's own program, or each fork would import it anew
    "dataset_steps.preload",
    "dataset_steps.import_dataset",
    *(f"model_steps.{step}" for step in ("__main__", "prepare", "train", "validate")),
    "tests.support.forks",
)
# Apple's libraries end a process that was forked and not replaced.
POSSIBLE = sys.platform == "linux"
START_SECONDS = 60


@cache
def start_server() -> None:
    """Start the process that is forked, without the environment of the test that asks first.

    boto3's default session keeps what the environment says when it is created.
    """
    get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    passed_on = ("PATH", "HOME", "LANG", "TMPDIR")
    known = {name: os.environ[name] for name in passed_on if name in os.environ}
    root = str(Path(__file__).parents[2])
    with mock.patch.dict(os.environ, {**known, "PYTHONPATH": root}, clear=True):
        forkserver.ensure_running()


class Fork:
    """A forked process, with the part of `subprocess.Popen`'s interface that tests use."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        """Start the process; return when it leads a session of its own."""
        start_server()
        self.argv = list(argv)
        context = get_context("forkserver")
        (source, feed), (output, sink) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        begun, begin = context.Pipe(duplex=False)
        given = (self.argv, dict(env), str(folder), source, sink, begin)
        self.process = context.Process(target=run_and_exit, args=given)
        self.process.start()
        for end in (source, sink, begin):
            end.close()
        self.stdin, self.stdout = open_pipe(feed, "w"), open_pipe(output, "r")
        if not wait([begun], START_SECONDS):
            raise TimeoutError(f"{self.argv} did not start")
        begun.close()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, None]:
        """Send the process this input and return all that it prints until it ends."""
        chunks: list[str] = []
        reader = Thread(target=lambda: chunks.append(self.stdout.read()), daemon=True)
        reader.start()
        try:
            self.stdin.write(text)
            self.stdin.close()
        except BrokenPipeError:  # it has ended, or reads nothing
            pass
        reader.join(timeout)
        if reader.is_alive():
            self.kill()
            raise subprocess.TimeoutExpired(self.argv, timeout or 0)
        self.wait()
        return "".join(chunks), None

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> None:
        self.process.join()


def open_pipe(end: Connection, mode: str) -> io.TextIOWrapper:
    """Open one end of a pipe as a text file, and close the `Connection`."""
    number = os.dup(end.fileno())
    end.close()
    file = os.fdopen(number, mode, encoding="utf-8", errors="replace")
    assert isinstance(file, io.TextIOWrapper)
    return file


def run_and_exit(
    argv: list[str],
    env: dict[str, str],
    folder: str,
    source: Connection,
    sink: Connection,
    begin: Connection,
) -> NoReturn:
    """Run `argv` in this process, which has just been forked, and exit as it does."""
    code = 1
    try:
        os.setsid()
        os.dup2(source.fileno(), 0)
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        begin.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False)
            for number, mode in enumerate(("r", "w", "w"))
        )
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(folder)
        find_main(argv)()
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def find_main(argv: list[str]) -> Callable[[], object]:
    """Set `sys.argv` and return the main function of a console script or of `python -c`."""
    if argv[:2] == [sys.executable, "-c"]:
        sys.argv = argv[1:2] + argv[3:]
        return lambda: exec(argv[2], {"__name__": "__main__"})  # noqa: S102
    sys.argv = argv
    entry = next(iter(metadata.entry_points(group="console_scripts", name=argv[0])))
    main: Callable[[], object] = entry.load()
    return main
