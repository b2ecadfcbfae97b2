"""Supervised port-forwards from a loopback port of this machine to a Service of the cluster.

`python -m lab.cluster.forward KUBECTL KUBECONFIG NAMESPACE SERVICE LOCAL REMOTE PATH` runs kubectl
port-forward and restarts it: kubectl exits when its pod does, and sometimes goes on running without
forwarding anything.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from lab.cluster import tools
from lab.cluster.workloads import Door, Workload
from lab.home import ports
from lab.wait import NotYet, expect_answer, wait_until

LOOK_SECONDS = 5
ANSWER_SECONDS = 3
START_SECONDS = 60  # kubectl may take so long to listen; a busy machine needs 20
# Failed looks before kubectl is restarted, and the most, when restarts did not help: what is slow
# is not made faster by a kubectl that starts, which takes a second of CPU.
PATIENCE, MOST_PATIENCE = 3, 24
PAUSE_SECONDS = 0.3


def command(kubeconfig: Path, workload: Workload, door: Door, local: int) -> tuple[str, ...]:
    """Return the command that forwards the loopback port `local` to the workload's door."""
    where = (tools.find("kubectl"), kubeconfig, workload.namespace, workload.name)
    words = map(str, (*where, local, door.port, door.path))
    return (sys.executable, "-m", "lab.cluster.forward", *words)


@contextmanager
def forwarding(kubeconfig: Path, workload: Workload, log: Path, timeout: float) -> Iterator[str]:
    """Forward a free port to the workload while the block runs, and yield its URL."""
    if not workload.door:
        raise ValueError(f"{workload.name} has no door")
    local = ports.choose_ports([workload.name], {}, 0)[workload.name]
    url = f"http://127.0.0.1:{local}"
    words = (*command(kubeconfig, workload, workload.door, local), str(os.getpid()))
    with (
        log.open("ab") as out,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        ) as process,
    ):
        try:
            look = partial(check_answer, url + workload.door.path)
            wait_until(look, what=workload.name, timeout=timeout, log=log)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and the kubectl that it started


def check_answer(url: str) -> None:
    """Raise NotYet or an OSError unless `url` answers 200 in ANSWER_SECONDS."""
    expect_answer(url, timeout=ANSWER_SECONDS)


def main() -> None:
    """Forward until this process or, if one is given, the parent process ends."""
    kubectl, kubeconfig, namespace, service, local, remote, path, *parent = sys.argv[1:]
    command = [
        *(kubectl, "--kubeconfig", kubeconfig, "port-forward", "--address", "127.0.0.1"),
        *("--namespace", namespace, f"service/{service}", f"{local}:{remote}"),
    ]
    pause, patience = Event(), PATIENCE
    wanted = partial(is_wanted, Path(kubeconfig), *map(int, parent))
    while wanted():
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            answered = supervise(process, f"http://127.0.0.1:{local}{path}", patience, wanted)
        patience = PATIENCE if answered else min(2 * patience, MOST_PATIENCE)
        pause.wait(PAUSE_SECONDS)


def is_wanted(kubeconfig: Path, parent: int | None = None) -> bool:
    """Return whether the kubeconfig exists and the parent, if one is given, is alive."""
    return kubeconfig.exists() and parent in (None, os.getppid())


def supervise(
    process: subprocess.Popen[bytes],
    url: str,
    patience: int = PATIENCE,
    wanted: Callable[[], bool] = lambda: True,
) -> bool:
    """Wait until kubectl exits; kill it when nothing answers through it, or it isn't wanted.

    Return whether anything has answered.
    """
    failures, answered, latest_start = 0, False, time.monotonic() + START_SECONDS
    while failures < patience and wanted():
        try:
            process.wait(LOOK_SECONDS)
            return answered
        except subprocess.TimeoutExpired:
            if is_answering(url):
                failures, answered = 0, True
            elif is_listening(url) or time.monotonic() > latest_start:
                failures += 1
    if wanted():
        print(f"nothing answers at {url}: forwarding anew", flush=True)
    process.kill()
    return answered


def is_answering(url: str) -> bool:
    try:
        check_answer(url)
    except (OSError, NotYet):
        return False
    return True


def is_listening(url: str) -> bool:
    """Return whether a connection is taken where `url` leads."""
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname, where.port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
