"""Airflow's official Helm chart: downloaded once, installed, and upgraded only on a change."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path

from lab.cluster import cache, tools
from lab.cluster.api import CALL_SECONDS, Cluster, translating_errors
from lab.config import KIT, Config
from lab.errors import MachineError
from lab.shell import run

PIN = Path("manifests", "airflow", "chart.toml")
RELEASE = "airflow"
NAMESPACE = "airflow"
INSTALL_SECONDS = 600
RENDER_SECONDS = 60
DIGEST = "content"  # the label of a release with the fingerprint of its chart and values


def find(config: Config) -> Path:
    """Return the chart's file: LAB_AIRFLOW_CHART, cached, or downloaded. Raises MachineError."""
    if config.chart:
        if not config.chart.is_file():
            raise MachineError(
                f"LAB_AIRFLOW_CHART={config.chart} is no file", "give the path of the chart's .tgz"
            )
        return config.chart
    pin = read_pin(config.kit)
    return cache.fetch(
        pin["url"], pin["sha256"], file_name(pin), fix="or: LAB_AIRFLOW_CHART=/path/to/the.tgz"
    )


def read_pin(kit: Path = KIT) -> dict[str, str]:
    """Return the version, URL and sha256 of the chart."""
    pin: dict[str, str] = tomllib.loads((kit / PIN).read_text("utf-8"))
    return {**pin, "url": pin["url"].format(**pin)}


def file_name(pin: dict[str, str]) -> str:
    return f"airflow-{pin['version']}.tgz"


def find_local(config: Config) -> Path | None:
    """Return LAB_AIRFLOW_CHART or the cached file, or None. Raises MachineError as `find` does."""
    if config.chart:
        return find(config)
    pin = read_pin(config.kit)
    return cache.find_cached(pin["sha256"], file_name(pin))


def describe(config: Config) -> str:
    """Return the chart's path, or the URL it will be downloaded from. Downloads nothing."""
    return str(find_local(config) or f"to be downloaded: {read_pin(config.kit)['url']}")


def install(config: Config, cluster: Cluster, values: Sequence[Path]) -> None:
    """Install or upgrade Airflow with these values, unless chart and values are unchanged.

    The database then has the tables of Airflow's version. Raises LabError.
    """
    chart = find(config)
    content = fingerprint([chart, *values])
    if is_deployed(cluster, content):
        return
    delete_pending_releases(cluster)
    helm(
        *("upgrade", "--install", RELEASE, chart, "--namespace", NAMESPACE),
        *values_flags(values),
        *("--labels", f"{DIGEST}={content}", "--timeout", f"{INSTALL_SECONDS}s"),
        *("--kubeconfig", cluster.kubeconfig),
        timeout=INSTALL_SECONDS + 30,
    )


def render(config: Config, values: Sequence[Path]) -> str:
    """Render the chart with these values and return the YAML. Raises LabError."""
    command = ("template", RELEASE, find(config), "--namespace", NAMESPACE, *values_flags(values))
    return helm(*command, timeout=RENDER_SECONDS)


def values_flags(values: Sequence[Path]) -> list[str | Path]:
    """Return helm's --values flags; later files override earlier ones."""
    return [word for file in values for word in ("--values", file)]


def helm(*arguments: str | Path, timeout: float) -> str:
    """Run helm and return what it printed. Raises LabError."""
    fix = "lab logs, lab doctor; then lab up again"
    return run([tools.find("helm"), *arguments], timeout=timeout, fix=fix)


def fingerprint(files: Sequence[Path]) -> str:
    """Return a hash of the files' contents that fits into a label."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def is_deployed(cluster: Cluster, content: str) -> bool:
    """Return whether the deployed release has this fingerprint."""
    return bool(list_release_secrets(cluster, f"status=deployed,{DIGEST}={content}"))


def list_release_secrets(cluster: Cluster, selector: str) -> list[str]:
    """List the names of the Secrets in which Helm stores its releases."""
    with translating_errors():
        found = cluster.core.list_namespaced_secret(
            NAMESPACE,
            label_selector=f"owner=helm,name={RELEASE},{selector}",
            _request_timeout=CALL_SECONDS,
        )
    return [secret.metadata.name for secret in found.items]


def delete_pending_releases(cluster: Cluster) -> None:
    """Delete the records of killed helm runs, which would block the next one.

    The next run adopts the objects that they created.
    """
    pending = "status in (pending-install,pending-upgrade,pending-rollback,uninstalling)"
    for name in list_release_secrets(cluster, pending):
        with translating_errors():
            cluster.core.delete_namespaced_secret(name, NAMESPACE, _request_timeout=CALL_SECONDS)
