"""Supervised port-forwards from a loopback port of this machine to a Service of the cluster.

`python -m lab.cluster.forward KUBECTL KUBECONFIG NAMESPACE SERVICE LOCAL REMOTE PATH` runs kubectl
port-forward and restarts it: kubectl exits when its pod does, and sometimes goes on running without
forwarding anything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from lab.cluster import tools
from lab.cluster.workloads import Door, Workload
from lab.home import ports
from lab.wait import NotYet, expect_answer, wait_until

LOOK_SECONDS = 2
ANSWER_SECONDS = 3
PATIENCE = 3  # failed checks before kubectl is restarted
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
    pause = Event()
    wanted = partial(is_wanted, Path(kubeconfig), *map(int, parent))
    while wanted():
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            supervise(process, f"http://127.0.0.1:{local}{path}", wanted)
        pause.wait(PAUSE_SECONDS)


def is_wanted(kubeconfig: Path, parent: int | None = None) -> bool:
    """Return whether the kubeconfig exists and the parent, if one is given, is alive."""
    return kubeconfig.exists() and parent in (None, os.getppid())


def supervise(
    process: subprocess.Popen[bytes], url: str, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Wait until kubectl exits; kill it when nothing answers through it, or it isn't wanted."""
    failures = 0
    while failures < PATIENCE and wanted():
        try:
            process.wait(LOOK_SECONDS)
            return
        except subprocess.TimeoutExpired:
            failures = 0 if is_answering(url) else failures + 1
    if wanted():
        print(f"nothing answers at {url}: forwarding anew", flush=True)
    process.kill()


def is_answering(url: str) -> bool:
    try:
        check_answer(url)
    except (OSError, NotYet):
        return False
    return True


if __name__ == "__main__":
    main()
