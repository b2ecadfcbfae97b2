"""Port-forwards: a cluster's Service on a loopback port of this machine, kept up by a process.

`python -m lab.cluster.forward KUBECTL KUBECONFIG NAMESPACE SERVICE LOCAL REMOTE PATH` is that
process. kubectl ends when its pod does, and sometimes goes on without forwarding anything: both are
noticed, and it is started again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event

import requests

from lab.cluster import node, tools
from lab.cluster.workloads import Workload
from lab.config import Config
from lab.model import Port, Service
from lab.wait import NotYet

LOOK_SECONDS = 2
ANSWER_SECONDS = 3
PATIENCE = 3  # looks without an answer before kubectl is started again
PAUSE_SECONDS = 0.3


def service(config: Config, workload: Workload, local: int) -> Service:
    """The process that keeps a workload's door on a loopback port; ready when it answers there."""
    if not workload.door:
        raise ValueError(f"{workload.name} has no door")
    door = workload.door
    words = (
        *(tools.find("kubectl"), node.kubeconfig(config), workload.namespace, workload.name),
        *(local, door.port, door.path),
    )
    return Service(
        name=workload.name,
        command=(sys.executable, "-m", "lab.cluster.forward", *map(str, words)),
        folder=config.run,
        environment={"PYTHONUNBUFFERED": "1"},
        ready=lambda: answers(f"http://127.0.0.1:{local}{door.path}"),
        ports=(Port(workload.name, local, door.protection),),
    )


def answers(url: str) -> None:
    """Raises NotYet or an OSError unless the server answers there."""
    code = requests.get(url, timeout=ANSWER_SECONDS).status_code
    if code != 200:
        raise NotYet(f"{url} answers {code}")


def main() -> None:
    """Forwards until it is ended."""
    kubectl, kubeconfig, namespace, service, local, remote, path = sys.argv[1:]
    command = [
        *(kubectl, "--kubeconfig", kubeconfig, "port-forward", "--address", "127.0.0.1"),
        *("--namespace", namespace, f"service/{service}", f"{local}:{remote}"),
    ]
    pause = Event()
    while Path(kubeconfig).exists():
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            follow(process, f"http://127.0.0.1:{local}{path}")
        pause.wait(PAUSE_SECONDS)


def follow(process: subprocess.Popen[bytes], url: str) -> None:
    """Returns when the forward has ended, or has been ended since nothing answers through it."""
    silent = 0
    while silent < PATIENCE:
        try:
            process.wait(LOOK_SECONDS)
            return
        except subprocess.TimeoutExpired:
            silent = 0 if serves(url) else silent + 1
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
