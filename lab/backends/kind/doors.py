"""The doors of a lab on kind: each a process that keeps a Service on a port of this machine."""

from __future__ import annotations

from lab.backends.kind import node
from lab.cluster import forward
from lab.cluster.workloads import Workload
from lab.config import Config
from lab.model import Port, Service


def service(config: Config, workload: Workload, local: int) -> Service:
    """The process that keeps a workload's door on a loopback port; ready when it answers there."""
    if not workload.door:
        raise ValueError(f"{workload.name} has no door")
    door = workload.door
    return Service(
        name=workload.name,
        command=forward.command(node.kubeconfig(config), workload, door, local),
        folder=config.run,
        environment={"PYTHONUNBUFFERED": "1"},
        ready=lambda: forward.answers(f"http://127.0.0.1:{local}{door.path}"),
        ports=(Port(workload.name, local, door.protection),),
    )
