"""Logs, events and objects of the cluster, without the content of any Secret."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.backends.kind import node
from lab.cluster import chart, tools
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW, IDENTITY, STORES, WORKLOADS, Workload
from lab.config import Config
from lab.errors import LabError

LINES = 2000  # of a log, at most
FOLLOWED = 20  # earlier lines of a log that is followed
SECONDS = 60
# Each attempt of each task, from the volume that outlives their pods.
TASK_LOGS = (
    f"find {node.VOLUMES}/*_airflow_airflow-logs -name 'attempt=*.log' -exec tail -v -n 60 {{}} +"
)
NAMESPACES = (AIRFLOW, STORES, IDENTITY)


def write_logs(config: Config, cluster: Cluster) -> dict[str, Path]:
    """Write one file per service with the logs of its pods, where the cluster returns them."""
    files = {}
    for workload in WORKLOADS:
        files[workload.name] = config.logs / f"{workload.name}.pods.log"
        with contextlib.suppress(LabError):
            text = cluster.kubectl(*log_arguments(workload, LINES), timeout=SECONDS)
            files[workload.name].write_text(text, "utf-8")
    return files


def log_arguments(workload: Workload, lines: int) -> tuple[str, ...]:
    place = ("--namespace", workload.namespace, "--selector", workload.selector)
    return ("logs", *place, "--all-containers", "--prefix", "--tail", str(lines))


def follow_commands(cluster: Cluster, wanted: Sequence[str]) -> list[list[str | Path]]:
    """Return the kubectl commands that follow the logs of these services."""
    base = (tools.find("kubectl"), "--kubeconfig", cluster.kubeconfig)
    return [
        [*base, *log_arguments(w, FOLLOWED), "--follow", "--max-log-requests", "20"]
        for w in WORKLOADS
        if w.name in wanted
    ]


def collect(config: Config, cluster: Cluster, folder: Path, values: Sequence[Path]) -> None:
    """Write pods, events, logs, rendered manifests and Helm's values to `folder`, if there are any.

    An output that fails is replaced by its error: the cluster to be examined may be broken.
    """
    outputs = {
        "pods.yaml": lambda: run_per_namespace(cluster, "get", "pods", "--output", "yaml"),
        "pods.txt": lambda: run_per_namespace(cluster, "describe", "pods"),
        "events.txt": lambda: run_per_namespace(
            cluster, "get", "events", "--sort-by=.lastTimestamp"
        ),
        "objects.txt": lambda: run_per_namespace(
            cluster, "get", "all,pvc,networkpolicies,resourcequotas"
        ),
        "nodes.txt": lambda: cluster.kubectl("describe", "nodes", timeout=SECONDS),
        "tasks.log": lambda: node.run_inside(config, "sh", "-c", TASK_LOGS, timeout=SECONDS),
        "node.log": lambda: node.run_inside(
            config, "journalctl", "--no-pager", "--lines", str(LINES)
        ),
        "airflow.yaml": lambda: chart.render(config, values),
    }
    for name, read in outputs.items():
        write_or_error(folder / name, read)
    write_logs(config, cluster)
    for file in [*config.logs.rglob("*.log"), *config.run.glob("*.yaml"), *values]:
        with contextlib.suppress(OSError):
            write_or_error(folder / file.name, lambda file=file: file.read_text("utf-8", "replace"))  # type: ignore[misc]


def run_per_namespace(cluster: Cluster, *arguments: str) -> str:
    """Run kubectl in each of the lab's namespaces and join what it printed."""
    shown = [
        cluster.kubectl(*arguments, "--namespace", name, timeout=SECONDS) for name in NAMESPACES
    ]
    return "\n---\n".join(shown)


def write_or_error(path: Path, read: Callable[[], str]) -> None:
    """Write what `read` returns to `path`, or its LabError."""
    try:
        text = read()
    except LabError as error:
        text = error.output or error.what
    path.write_text(text, "utf-8")
