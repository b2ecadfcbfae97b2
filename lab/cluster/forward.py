"""Port-forwards: a cluster's Service on a loopback port of this machine, kept up by a process.

`python -m lab.cluster.forward KUBECTL KUBECONFIG NAMESPACE SERVICE LOCAL REMOTE PATH` is that
process. kubectl ends when its pod does, and sometimes goes on without forwarding anything: both are
noticed, and it is started again.
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

import requests

from lab.cluster import tools
from lab.cluster.workloads import Door, Workload
from lab.home import ports
from lab.wait import NotYet, until

LOOK_SECONDS = 2
ANSWER_SECONDS = 3
PATIENCE = 3  # looks without an answer before kubectl is started again
PAUSE_SECONDS = 0.3


def command(kubeconfig: Path, workload: Workload, door: Door, local: int) -> tuple[str, ...]:
    """What this machine runs to reach a workload's door on its port `local`."""
    where = (tools.find("kubectl"), kubeconfig, workload.namespace, workload.name)
    words = map(str, (*where, local, door.port, door.path))
    return (sys.executable, "-m", "lab.cluster.forward", *words)


@contextmanager
def opened(kubeconfig: Path, workload: Workload, log: Path, timeout: float) -> Iterator[str]:
    """The address on this machine at which a workload is reached while the block runs."""
    if not workload.door:
        raise ValueError(f"{workload.name} has no door")
    local = ports.choose([workload.name], {}, 0)[workload.name]
    url = f"http://127.0.0.1:{local}"
    words = (*command(kubeconfig, workload, workload.door, local), str(os.getpid()))
    with (
        log.open("ab") as out,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        ) as process,
    ):
        try:
            look = partial(answers, url + workload.door.path)
            until(look, what=workload.name, timeout=timeout, log=log)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and the kubectl that it has started


def answers(url: str) -> None:
    """Raises NotYet or an OSError unless the server answers there."""
    code = requests.get(url, timeout=ANSWER_SECONDS).status_code
    if code != 200:
        raise NotYet(f"{url} answers {code}")


def main() -> None:
    """Forwards until it is ended; or, where a parent is named, until that has ended."""
    kubectl, kubeconfig, namespace, service, local, remote, path, *parent = sys.argv[1:]
    command = [
        *(kubectl, "--kubeconfig", kubeconfig, "port-forward", "--address", "127.0.0.1"),
        *("--namespace", namespace, f"service/{service}", f"{local}:{remote}"),
    ]
    pause = Event()
    wanted = partial(is_wanted, Path(kubeconfig), *map(int, parent))
    while wanted():
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            follow(process, f"http://127.0.0.1:{local}{path}", wanted)
        pause.wait(PAUSE_SECONDS)


def is_wanted(kubeconfig: Path, parent: int | None = None) -> bool:
    """Whether there is a cluster to reach, and somebody who asked for it."""
    return kubeconfig.exists() and parent in (None, os.getppid())


def follow(
    process: subprocess.Popen[bytes], url: str, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Returns when the forward has ended, or has been ended: nothing answers through it, or nobody
    wants it any more."""
    silent = 0
    while silent < PATIENCE and wanted():
        try:
            process.wait(LOOK_SECONDS)
            return
        except subprocess.TimeoutExpired:
            silent = 0 if serves(url) else silent + 1
    if wanted():
        print(f"nothing answers at {url}: forwarding anew", flush=True)
    process.kill()


def serves(url: str) -> bool:
    try:
        answers(url)
    except (OSError, NotYet):
        return False
    return True


if __name__ == "__main__":
    main()
