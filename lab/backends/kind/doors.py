"""Port-forwards of a lab on kind, each run by a process of this machine."""

from __future__ import annotations

from lab.backends.kind import node
from lab.cluster import forward
from lab.cluster.workloads import Workload
from lab.config import Config
from lab.model import Port, Service


def forward_service(config: Config, workload: Workload, local: int) -> Service:
    """Return the process that forwards a loopback port to the workload; ready when it answers."""
    if not workload.door:
        raise ValueError(f"{workload.name} has no door")
    door = workload.door
    return Service(
        name=workload.name,
        command=forward.command(node.kubeconfig_path(config), workload, door, local),
        folder=config.run,
        environment={"PYTHONUNBUFFERED": "1"},
        ready=lambda: forward.check_answer(f"http://127.0.0.1:{local}{door.path}"),
        ports=(Port(workload.name, local, door.protection),),
    )
