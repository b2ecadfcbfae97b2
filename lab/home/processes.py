"""Service processes: started once, found again by a later command, ended with all they started."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from lab.config import Config
from lab.errors import NotRunningError, ServiceError
from lab.files import write_private_file
from lab.foreign import NO_AWS
from lab.model import Service
from lab.wait import NotYet, wait_until

# Each process of a lab has this variable, so that it is found even when no pid file names it. It is
# not called LAB_HOME: a user's own shell may have that one.
MARK = "MLOPS_LAB_INSTANCE"
NAME = "MLOPS_LAB_SERVICE"
VERSION = "MLOPS_LAB_VERSION"  # of the service: see `version_of`
COMMAND = "command"  # the NAME of a tool that a lab command itself runs
# SeaweedFS takes two to end. What is killed after these loses nothing: a lab survives any kill.
STOP_SECONDS = 3
MARK_SECONDS = 30
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "USER", "LOGNAME", "TZ")


def start_service(config: Config, service: Service) -> None:
    """Start the service's process in its own session: it outlives this command and its terminal.

    What an earlier one of the same name left behind is terminated first.
    """
    terminate_processes(list_processes(config, service.name))
    service.prepare()
    with log_path(config, service.name).open("ab") as log:
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
    write_private_file(pid_file(config, service.name), str(process.pid))
    wait_for_mark(config, service, process)


def wait_for_mark(config: Config, service: Service, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process shows its environment, by which it is known, or has ended.

    For a moment after exec Linux shows none; a busy machine makes that moment long enough for a
    service to be taken for dead, and to be started again beside the first.
    """

    def check_environment() -> None:
        if process.poll() is None and not find_process(config, service.name):
            raise NotYet("its environment can't be read yet")

    wait_until(check_environment, what=service.name, timeout=MARK_SECONDS, interval=0.01)


def environment(config: Config, service: Service) -> dict[str, str]:
    """Return the service's environment: of the caller's, only what every program needs.

    Its home folder is the lab's: what is in the person's (`.aws`, `.seaweedfs`, `.netrc`) is not
    meant for it.
    """
    passed = {name: os.environ[name] for name in INHERITED if name in os.environ}
    marks = {MARK: str(config.home), NAME: service.name, VERSION: version_of(service)}
    return {**passed, "HOME": str(config.run), **NO_AWS, **service.environment, **marks}


def version_of(service: Service) -> str:
    """Return a digest of what the service's process is started from."""
    origin = [service.command, sorted(service.environment.items()), service.code()]
    return hashlib.sha256(json.dumps(origin).encode()).hexdigest()


def pid_file(config: Config, name: str) -> Path:
    return config.run / f"{name}.pid"


def log_path(config: Config, name: str) -> Path:
    return config.logs / f"{name}.log"


def find_process(config: Config, name: str) -> psutil.Process | None:
    """Return the service's process, or None when it does not run.

    The recorded process must have the lab's mark: pids are reused. (Its start time says less: that
    is derived from the machine's clock, which may be set.)
    """
    try:
        process = psutil.Process(int(pid_file(config, name).read_text("utf-8")))
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and is_marked(process.environ(), config, name) else None
    except (FileNotFoundError, ValueError, OverflowError, psutil.Error):
        return None


def is_marked(env: Mapping[str, str], config: Config, name: str | None = None) -> bool:
    """Return whether an environment is that of a process of this lab (and of this service)."""
    return env.get(MARK) == str(config.home) and name in (None, env.get(NAME))


def list_processes(config: Config, name: str | None = None) -> list[psutil.Process]:
    """List the other processes that have the lab's mark (and the service's name, if given)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if is_marked(process.environ(), config, name) and process.pid != os.getpid():
                found.append(process)
    return found


@contextlib.contextmanager
def exclusive_command(config: Config) -> Iterator[None]:
    """Terminate the tools that an interrupted command left; mark those that this one starts.

    A tool that outlives the `lab up` that started it would go on changing what the next one makes.
    """
    terminate_processes(list_processes(config, COMMAND))
    marks = {MARK: str(config.home), NAME: COMMAND}
    os.environ.update(marks)
    try:
        yield
    finally:
        for name in marks:
            os.environ.pop(name, None)


def measure_memory(config: Config) -> int:
    """Return the sum of the unique set sizes of the lab's processes, in bytes."""
    total = 0
    for process in list_processes(config):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total


def list_listening_ports(config: Config) -> set[int]:
    """Return the TCP ports on which the lab's processes listen."""
    ports = set()
    for process in list_processes(config):
        with contextlib.suppress(psutil.Error):
            ports |= {c.laddr.port for c in process.net_connections("tcp") if c.status == "LISTEN"}
    return ports


def list_undeclared_ports(config: Config, services: Iterable[Service]) -> list[int]:
    """List the ports on which a process of the lab listens though no service declares them."""
    declared = {port.number for service in services for port in service.ports}
    return sorted(list_listening_ports(config) - declared)


def refuse_stopped(services: Iterable[tuple[Service, bool]]) -> None:
    """Raise NotRunningError, naming the stopped services, unless all run."""
    if dead := [service.name for service, running in services if not running]:
        raise NotRunningError(f"the lab does not run: no {', '.join(dead)}", "lab up starts it")


def terminate_processes(processes: Iterable[psutil.Process]) -> None:
    """Terminate the processes; kill those that still run after STOP_SECONDS."""
    processes = list(processes)
    send_signal(processes, signal.SIGTERM)
    left = wait_for_end(processes, STOP_SECONDS)
    send_signal(left, signal.SIGKILL)
    wait_for_end(left, STOP_SECONDS)


def wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until none of them runs; return those that still do after so many seconds.

    A zombie counts as ended: in a container, process 1 may never reap it.
    """
    deadline = time.monotonic() + seconds
    while (left := [p for p in processes if is_running(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def send_signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def terminate_all(config: Config) -> int:
    """Terminate all processes of the lab, those started meanwhile too; return how many."""
    total = 0
    while found := list_processes(config):
        total += len(found)
        terminate_processes(found)
    for path in config.run.glob("*.pid"):
        path.unlink(missing_ok=True)
    return total


def ensure_running(config: Config, service: Service) -> bool:
    """Start the service's process unless it runs; return whether it had to be started.

    One that was started from something else is ended first: see `end_outdated`.
    """
    end_outdated(config, service)
    if find_process(config, service.name):
        return False
    start_service(config, service)
    return True


def end_outdated(config: Config, *services: Service) -> None:
    """End the processes that were started from something else than these services are now; say so.

    They have the modules of an older kit in memory, and would read its newer files, or have the
    settings of an older one.
    """
    if names := [service.name for service in services if is_outdated(config, service)]:
        print(f"  started anew, since the kit or a setting has changed: {', '.join(names)}")
        terminate_processes(p for name in names for p in list_processes(config, name))


def is_outdated(config: Config, service: Service) -> bool:
    """Return whether the service runs, but was started from something else than it is now."""
    with contextlib.suppress(psutil.Error):
        process = find_process(config, service.name)
        return process is not None and process.environ().get(VERSION) != version_of(service)
    return False


def wait_until_ready(config: Config, service: Service, timeout: float) -> None:
    """Wait until the service answers; start it once more if it dies meanwhile.

    A service can die some seconds after one of its workers was killed. Raises ServiceError, at once
    when it dies a second time.
    """
    try:
        wait_for_answer(config, service, timeout)
    except ServiceError:
        if find_process(config, service.name):
            raise
        start_service(config, service)
        wait_for_answer(config, service, timeout)


def wait_for_answer(config: Config, service: Service, timeout: float) -> None:
    """Wait until the service answers. Raises ServiceError, at once when its process has died."""

    def failure() -> str | None:
        return (
            None
            if find_process(config, service.name)
            else f"{service.name} exited before it answered"
        )

    log = log_path(config, service.name)
    wait_until(service.ready, what=service.name, timeout=timeout, failure=failure, log=log)
