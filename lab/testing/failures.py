"""A short list of failures before the tracebacks: CI may keep only a part of a long report.

Each failure comes with what was wrong with the lab at that moment, which no later look shows.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.cluster.api import Cluster
    from lab.config import Config

NAME = "mlops_lab_failures"
LINES = 8  # of a pod's log
WIDTH = 240  # characters of a line


class Failures:
    """The failures of a session that has a test with a lab. A pytest plugin."""

    def __init__(self) -> None:
        self.has_lab = False
        self.lines: list[str] = []
        self.state: list[str] = []  # of the lab, as last described

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.has_lab = any("lab_config" in getattr(item, "fixturenames", ()) for item in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and self.has_lab:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else report.longreprtext
            lines = [f"{report.nodeid} ({report.when}): {first_and_last_line(why)}"]
            if config := getattr(item, "funcargs", {}).get("lab_config"):
                lines += self.describe_change(describe_lab(config))
            vars(report)["in_short"] = lines
        return report

    def describe_change(self, found: list[str]) -> list[str]:
        """Return lines on what is wrong with the lab; none if nothing changed since the last."""
        if found == self.state:
            return []
        self.state = found
        return [f"    {line[:WIDTH]}" for line in found or ["the lab is well again"]]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the failures of this process and of pytest-xdist's workers."""
        self.lines += getattr(report, "in_short", [])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the list before the reporter begins with the tracebacks."""
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if self.lines and reporter:
            reporter.section("failed, in short")
            for line in self.lines:
                reporter.write_line(line)


def print_line(config: pytest.Config, line: str) -> None:
    """Print a line past pytest's capture, which would keep what a fixture prints."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{line}")


def first_and_last_line(text: str) -> str:
    """Return the first line and the last: a failed command's last line mostly says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " … ".join(line[:WIDTH] for line in dict.fromkeys(lines[:1] + lines[-1:]))


def describe_lab(config: Config) -> list[str]:
    """List the services that do not serve and, on a cluster, the ends of their pods' logs."""
    from lab.backends import find_backend

    try:
        found = find_backend(config.backend).list_services(config)
        down = [f"{service.name} does not serve" for service, serves in found if not serves]
        return down + (describe_unready_pods(config) if config.backend == "kind" else [])
    except Exception as error:
        return [f"the lab can't be asked: {first_and_last_line(str(error))}"]


def describe_unready_pods(config: Config) -> list[str]:
    """List each pod that has a container that is not ready, with the last lines of its logs."""
    from lab.backends.kind import node
    from lab.cluster.api import Cluster

    cluster, lines = Cluster(node.kubeconfig_path(config)), []
    for row in cluster.kubectl("get", "pods", "--all-namespaces", "--no-headers").splitlines():
        namespace, name, ready, status, *_ = row.split()
        if len(set(ready.split("/"))) > 1 and status != "Completed":
            lines.append(" ".join(row.split()))
            lines += tail_logs(cluster, namespace, name)
    return lines


def tail_logs(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """Return the last lines of a pod's logs or, without logs, what keeps it from starting."""
    from lab.errors import LabError

    try:
        words = ("logs", "--namespace", namespace, name, "--all-containers", f"--tail={LINES}")
        logged = cluster.kubectl(*words, timeout=30).splitlines()
    except LabError as error:
        logged = (error.output or error.what).splitlines()
    return [f"  {line}" for line in logged[-2 * LINES :]]
