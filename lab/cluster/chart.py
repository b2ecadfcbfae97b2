"""Airflow's official chart: had from the cache, installed once, upgraded when something changed."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path

from lab.cluster import cache, tools
from lab.cluster.api import CALL_SECONDS, Cluster, answers_known
from lab.config import TREE, Config
from lab.errors import MachineError
from lab.shell import run

PIN = Path("manifests", "airflow", "chart.toml")
RELEASE = "airflow"
NAMESPACE = "airflow"
INSTALL_SECONDS = 600
RENDER_SECONDS = 60
DIGEST = "content"  # the label of a release that says what it was made of


def find(config: Config) -> Path:
    """The chart's file: LAB_AIRFLOW_CHART's, the cache's, or downloaded. Raises MachineError."""
    if config.chart:
        if not config.chart.is_file():
            raise MachineError(
                f"LAB_AIRFLOW_CHART={config.chart} is no file", "give the path of the chart's .tgz"
            )
        return config.chart
    pin = pinned()
    return cache.fetch(
        pin["url"], pin["sha256"], file_name(pin), fix="or: LAB_AIRFLOW_CHART=/path/to/the.tgz"
    )


def pinned() -> dict[str, str]:
    """Version, address and sha256 of the chart."""
    pin: dict[str, str] = tomllib.loads((TREE / PIN).read_text("utf-8"))
    return {**pin, "url": pin["url"].format(**pin)}


def file_name(pin: dict[str, str]) -> str:
    return f"airflow-{pin['version']}.tgz"


def here(config: Config) -> Path | None:
    """The chart's file where it is on this machine. Raises MachineError as `find` does."""
    if config.chart:
        return find(config)
    pin = pinned()
    return cache.held(pin["sha256"], file_name(pin))


def describe(config: Config) -> str:
    """Where the chart is, or will come from. Downloads nothing."""
    return str(here(config) or f"to be downloaded: {pinned()['url']}")


def install(config: Config, cluster: Cluster, values: Sequence[Path]) -> None:
    """Airflow is installed with these values; a release that is of the same content is left alone.

    Its database has the tables of its version. Raises LabError.
    """
    chart = find(config)
    content = fingerprint([chart, *values])
    if deployed(cluster, content):
        return
    forget_interrupted(cluster)
    helm(
        *("upgrade", "--install", RELEASE, chart, "--namespace", NAMESPACE),
        *flags(values),
        *("--labels", f"{DIGEST}={content}", "--timeout", f"{INSTALL_SECONDS}s"),
        *("--kubeconfig", cluster.kubeconfig),
        timeout=INSTALL_SECONDS + 30,
    )


def render(config: Config, values: Sequence[Path]) -> str:
    """The chart's objects with these values, as YAML. Raises LabError."""
    command = ("template", RELEASE, find(config), "--namespace", NAMESPACE, *flags(values))
    return helm(*command, timeout=RENDER_SECONDS)


def flags(values: Sequence[Path]) -> list[str | Path]:
    """The files of values as helm takes them, the strongest last."""
    return [word for file in values for word in ("--values", file)]


def helm(*arguments: str | Path, timeout: float) -> str:
    """What helm printed. Raises LabError."""
    fix = "lab logs, lab doctor; then lab up again"
    return run([tools.find("helm"), *arguments], timeout=timeout, fix=fix)


def fingerprint(files: Sequence[Path]) -> str:
    """Changes when one of the files does; fits into a label."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def deployed(cluster: Cluster, content: str) -> bool:
    """Whether the release that serves was made of this content."""
    return bool(releases(cluster, f"status=deployed,{DIGEST}={content}"))


def releases(cluster: Cluster, selector: str) -> list[str]:
    """The names of the Secrets in which Helm remembers its releases."""
    with answers_known():
        found = cluster.core.list_namespaced_secret(
            NAMESPACE,
            label_selector=f"owner=helm,name={RELEASE},{selector}",
            _request_timeout=CALL_SECONDS,
        )
    return [secret.metadata.name for secret in found.items]


def forget_interrupted(cluster: Cluster) -> None:
    """Helm does not think that it is still at work: it was killed. What it made, it takes over."""
    pending = "status in (pending-install,pending-upgrade,pending-rollback,uninstalling)"
    for name in releases(cluster, pending):
        with answers_known():
            cluster.core.delete_namespaced_secret(name, NAMESPACE, _request_timeout=CALL_SECONDS)
