"""Service processes: started once, found again by a later command, ended with all they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from lab.config import Config
from lab.errors import NotRunningError, ServiceError
from lab.files import write_private
from lab.model import Service
from lab.wait import NotYet, until

# Each process of a lab carries this variable, so that none is missed even when nobody wrote down
# that it was started. It is not called LAB_HOME: a person's own shell may carry that one.
MARK = "MLOPS_LAB_INSTANCE"
NAME = "MLOPS_LAB_SERVICE"
COMMAND = "command"  # what a tool is called that a command runs for a while
STOP_SECONDS = 5
MARK_SECONDS = 30
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "USER", "LOGNAME", "TZ")


def start(config: Config, service: Service) -> None:
    """The service's process runs, by itself: it outlives this command and its terminal.

    What an earlier one of the same name left behind is ended first.
    """
    end(strays(config, service.name))
    service.prepare()
    with log_of(config, service.name).open("ab") as log:
        process = subprocess.Popen(
            list(service.command),
            env=environment(config, service),
            cwd=service.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    write_private(pid_file(config, service.name), str(process.pid))
    await_mark(config, service, process)


def await_mark(config: Config, service: Service, process: subprocess.Popen[bytes]) -> None:
    """Return when the process shows its environment, by which it is known, or has ended.

    For a moment after exec Linux shows none; a busy machine makes that moment long enough for a
    service to be taken for dead, and to be started again beside the first.
    """

    def shown() -> None:
        if process.poll() is None and not find(config, service.name):
            raise NotYet("its environment can't be read yet")

    until(shown, what=service.name, timeout=MARK_SECONDS, interval=0.01)


def environment(config: Config, service: Service) -> dict[str, str]:
    """What the process sees: nothing of the caller's environment but what every program needs."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed, **service.environment, MARK: str(config.home), NAME: service.name}


def pid_file(config: Config, name: str) -> Path:
    return config.run / f"{name}.pid"


def log_of(config: Config, name: str) -> Path:
    return config.logs / f"{name}.log"


def find(config: Config, name: str) -> psutil.Process | None:
    """The service's process, or None when it does not run.

    The recorded process must carry the lab's mark: ids are used again. (When it began says less:
    that is derived from the machine's clock, which may be set.)
    """
    try:
        process = psutil.Process(int(pid_file(config, name).read_text("utf-8")))
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and is_marked(process.environ(), config, name) else None
    except (FileNotFoundError, ValueError, OverflowError, psutil.Error):
        return None


def is_marked(env: Mapping[str, str], config: Config, name: str | None = None) -> bool:
    """Whether an environment is that of a process of this lab (and of this service)."""
    return env.get(MARK) == str(config.home) and name in (None, env.get(NAME))


def strays(config: Config, name: str | None = None) -> list[psutil.Process]:
    """Every process that carries the lab's mark (and the service's name, where one is given)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if is_marked(process.environ(), config, name) and process.pid != os.getpid():
                found.append(process)
    return found


@contextlib.contextmanager
def only_command(config: Config) -> Iterator[None]:
    """No command that an interrupted one left is at work; those started from here are known.

    A tool that outlives the `lab up` that started it would go on changing what the next one makes.
    """
    end(strays(config, COMMAND))
    marks = {MARK: str(config.home), NAME: COMMAND}
    os.environ.update(marks)
    try:
        yield
    finally:
        for name in marks:
            os.environ.pop(name, None)


def memory(config: Config) -> int:
    """The bytes that the lab's processes take, each for itself."""
    total = 0
    for process in strays(config):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total


def listening(config: Config) -> set[int]:
    """The TCP ports on which the lab's processes listen."""
    ports = set()
    for process in strays(config):
        with contextlib.suppress(psutil.Error):
            ports |= {c.laddr.port for c in process.net_connections("tcp") if c.status == "LISTEN"}
    return ports


def undeclared(config: Config, services: Iterable[Service]) -> list[int]:
    """Ports on which a process of the lab listens though no service names them."""
    declared = {port.number for service in services for port in service.ports}
    return sorted(listening(config) - declared)


def refuse_stopped(services: Iterable[tuple[Service, bool]]) -> None:
    """Raises NotRunningError, naming the services that do not run."""
    if dead := [service.name for service, running in services if not running]:
        raise NotRunningError(f"the lab does not run: no {', '.join(dead)}", "lab up starts it")


def end(processes: Iterable[psutil.Process]) -> None:
    """None of them runs: asked first, killed after STOP_SECONDS."""
    processes = list(processes)
    send(processes, signal.SIGTERM)
    left = await_end(processes, STOP_SECONDS)
    send(left, signal.SIGKILL)
    await_end(left, STOP_SECONDS)


def await_end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after so many seconds; returns as soon as none does.

    One that nobody has reaped has ended: in a container, process 1 may never reap.
    """
    deadline = time.monotonic() + seconds
    while (left := [p for p in processes if runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def end_all(config: Config) -> int:
    """No process of the lab runs, nor one that was started meanwhile; how many were ended."""
    total = 0
    while found := strays(config):
        total += len(found)
        end(found)
    for path in config.run.glob("*.pid"):
        path.unlink(missing_ok=True)
    return total


def ensure(config: Config, service: Service) -> bool:
    """The service's process runs; whether it had to be started."""
    if find(config, service.name):
        return False
    start(config, service)
    return True


def await_ready(config: Config, service: Service, timeout: float) -> None:
    """The service answers; one that dies meanwhile is started once more.

    A service can die some seconds after one of its workers was killed. Raises ServiceError, at once
    when it dies a second time.
    """
    try:
        await_answer(config, service, timeout)
    except ServiceError:
        if find(config, service.name):
            raise
        start(config, service)
        await_answer(config, service, timeout)


def await_answer(config: Config, service: Service, timeout: float) -> None:
    """The service answers. Raises ServiceError, at once when its process has died."""

    def alive() -> str | None:
        return None if find(config, service.name) else f"{service.name} exited before it answered"

    log = log_of(config, service.name)
    until(service.ready, what=service.name, timeout=timeout, alive=alive, log=log)
