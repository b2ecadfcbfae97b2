"""What a cluster can say of itself: logs, events, objects. It never shows a Secret's content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.backends.kind import node
from lab.cluster import chart, tools
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW, STORES, WORKLOADS, Workload
from lab.config import Config
from lab.errors import LabError

LINES = 2000  # of a log, at most
FOLLOWED = 20  # lines of the past, where a log is followed
SECONDS = 60
# Each attempt of each task, from the volume that outlives their pods.
TASK_LOGS = (
    f"find {node.VOLUMES}/*_airflow_airflow-logs -name 'attempt=*.log' -exec tail -v -n 60 {{}} +"
)
NAMESPACES = (AIRFLOW, STORES)


def logs(config: Config, cluster: Cluster) -> dict[str, Path]:
    """A file per service that holds what its pods have logged, as far as the cluster tells."""
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
    """What prints the logs of these services as they grow."""
    base = (tools.find("kubectl"), "--kubeconfig", cluster.kubeconfig)
    return [
        [*base, *log_arguments(w, FOLLOWED), "--follow", "--max-log-requests", "20"]
        for w in WORKLOADS
        if w.name in wanted
    ]


def collect(config: Config, cluster: Cluster, folder: Path, values: Sequence[Path]) -> None:
    """`folder` holds pods, events, logs, rendered manifests and Helm's values, as far as there are.

    What fails to be told is told in its place: a cluster that is asked why it failed may be broken.
    """
    tell = {
        "pods.yaml": lambda: every(cluster, "get", "pods", "--output", "yaml"),
        "pods.txt": lambda: every(cluster, "describe", "pods"),
        "events.txt": lambda: every(cluster, "get", "events", "--sort-by=.lastTimestamp"),
        "objects.txt": lambda: every(cluster, "get", "all,pvc,networkpolicies,resourcequotas"),
        "nodes.txt": lambda: cluster.kubectl("describe", "nodes", timeout=SECONDS),
        "tasks.log": lambda: node.inside(config, "sh", "-c", TASK_LOGS, timeout=SECONDS),
        "node.log": lambda: node.inside(config, "journalctl", "--no-pager", "--lines", str(LINES)),
        "airflow.yaml": lambda: chart.render(config, values),
    }
    for name, telling in tell.items():
        write(folder / name, telling)
    logs(config, cluster)
    for file in [*config.logs.rglob("*.log"), *config.run.glob("*.yaml"), *values]:
        with contextlib.suppress(OSError):
            write(folder / file.name, lambda file=file: file.read_text("utf-8", "replace"))  # type: ignore[misc]


def every(cluster: Cluster, *arguments: str) -> str:
    """What kubectl prints for each of the lab's namespaces."""
    shown = [
        cluster.kubectl(*arguments, "--namespace", name, timeout=SECONDS) for name in NAMESPACES
    ]
    return "\n---\n".join(shown)


def write(path: Path, telling: Callable[[], str]) -> None:
    try:
        text = telling()
    except LabError as error:
        text = error.what
    path.write_text(text, "utf-8")
