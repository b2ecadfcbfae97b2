"""What a session of tests took, skipped and failed: at its end, and at the end of CI.

The durations of parallel workers are summed: they are workers' time, not wall time.
`python tests/support/session_report.py FOLDER` prints CI's table from the files that its sessions
have written there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

NAME = "session-report"
SHOWN_FILES = 12
SHOWN_CHARACTERS = 300  # of a failure's message, whose whole CI may have cut out
VARIABLE = "LAB_TEST_TIMES"  # the folder into which a session writes its times


class SessionReport:
    """Seconds of a session's tests, by file, why tests were skipped and which failed. A plugin."""

    def __init__(self) -> None:
        from tests.support.workers import room  # not at the top: this file is a program, too

        self.room = room
        self.began = time.monotonic()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tests: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.failed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        if self.room(report.nodeid) == "kind":
            file += " on kind"
        self.seconds[file] += report.duration
        self.tests[file] += report.when == "call"
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1
        if report.failed:
            self.failed[report.nodeid] = summarise(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped")
            for reason, number in self.skipped.most_common():
                terminalreporter.write_line(f"{number:7}  {reason}")
        if sum(self.seconds.values()) < 60:
            return
        terminalreporter.section("seconds by file")
        for file, seconds in list_longest(self.seconds):
            terminalreporter.write_line(f"{seconds:7.1f}  {file} ({self.tests[file]} tests)")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        folder = os.environ.get(VARIABLE)
        if folder and not hasattr(session.config, "workerinput"):
            wall = time.monotonic() - self.began
            found = {"wall": wall, "seconds": self.seconds, "tests": self.tests}
            name = f"{time.time_ns()}-{os.getpid()}.json"
            Path(folder, name).write_text(json.dumps({**found, "failed": self.failed}), "utf-8")


def summarise(report: pytest.TestReport) -> str:
    """Return the message of a failure in one line of at most SHOWN_CHARACTERS."""
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash else str(report.longrepr)
    return " ".join(f"{report.when}: {message}".split())[:SHOWN_CHARACTERS]


def list_longest(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the SHOWN_FILES files that took most, the longest first."""
    return sorted(seconds.items(), key=itemgetter(1), reverse=True)[:SHOWN_FILES]


def print_table(folder: Path) -> None:
    """Print the seconds of CI's phases and of the longest test files, then what failed."""
    print("\nseconds  what")
    if (phases := folder / "phases").exists():
        for line in phases.read_text("utf-8").splitlines():
            seconds, _, name = line.partition(" ")
            print(f"{seconds:>7}  {name}")
    sessions = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    for found in sessions:
        number = sum(found["tests"].values())
        print(f"{found['wall']:7.0f}  pytest: {number} tests; most by file, summed over workers:")
        for file, spent in list_longest(found["seconds"]):
            print(f"{spent:15.0f}  {file} ({found['tests'][file]})")
    for found in sessions:
        for nodeid, message in found["failed"].items():
            print(f"failed   {nodeid}\n         {message}")


if __name__ == "__main__":
    print_table(Path(sys.argv[1]))
