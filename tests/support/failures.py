"""What has failed, told in a few lines before the tracebacks: of a long report CI may keep a part.

With each failure goes what was wrong with the lab at that moment, which is gone when the report is.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from lab.backends import find_backend
from lab.config import Config
from lab.errors import LabError
from tests.support.control import control_of
from tests.support.control.pods import Pods

NAME = "failures"
LINES = 8  # of a pod's log
WIDTH = 240  # characters of a line


class Failures:
    """The failures of a session. A plugin of pytest's."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.state: list[str] = []  # of the lab, when it was told last

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else report.longreprtext
            lines = [f"{report.nodeid} ({report.when}): {ends(why)}"]
            if config := getattr(item, "funcargs", {}).get("lab_config"):
                lines += self.told(state(config))
            vars(report)["in_short"] = lines
        return report

    def told(self, found: list[str]) -> list[str]:
        """What is wrong with the lab, where it is not what was wrong before."""
        if found == self.state:
            return []
        self.state = found
        return [f"    {line[:WIDTH]}" for line in found or ["the lab is well again"]]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what this process or a worker of pytest-xdist's has found."""
        self.lines += getattr(report, "in_short", [])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Before the reporter begins with the tracebacks."""
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if self.lines and reporter:
            reporter.section("failed, in short")
            for line in self.lines:
                reporter.write_line(line)


def say(config: pytest.Config, line: str) -> None:
    """A line for whoever runs the tests: what a fixture prints, pytest would keep to itself."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{line}")


def ends(text: str) -> str:
    """The first line and the last: of a command that failed, the last one mostly says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " … ".join(line[:WIDTH] for line in dict.fromkeys(lines[:1] + lines[-1:]))


def state(config: Config) -> list[str]:
    """What does not serve, and on a cluster the end of what its pods have logged."""
    try:
        found = find_backend(config.backend).list_services(config)
        down = [f"{service.name} does not serve" for service, serves in found if not serves]
        control = control_of(config)
        return down + (unready(control) if isinstance(control, Pods) else [])
    except Exception as error:
        return [f"the lab can't be asked: {ends(str(error))}"]


def unready(pods: Pods) -> list[str]:
    """Each pod of which a container is not ready, and the last lines of its logs."""
    kubectl, lines = pods.cluster.kubectl, []
    for row in kubectl("get", "pods", "--all-namespaces", "--no-headers").splitlines():
        namespace, name, ready, status, *_ = row.split()
        if len(set(ready.split("/"))) > 1 and status != "Completed":
            lines.append(" ".join(row.split()))
            lines += tail(pods, namespace, name)
    return lines


def tail(pods: Pods, namespace: str, name: str) -> list[str]:
    """The last lines of a pod's logs; what keeps a container from starting, where it has none."""
    try:
        words = ("logs", "--namespace", namespace, name, "--all-containers", f"--tail={LINES}")
        logged = pods.cluster.kubectl(*words, timeout=30).splitlines()
    except LabError as error:
        logged = error.what.splitlines()
    return [f"  {line}" for line in logged[-2 * LINES :]]
