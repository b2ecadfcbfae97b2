"""Seconds of tests by file: a table at the end of a session, and one at the end of CI.

The durations of parallel workers are summed: they are workers' time, not wall time.
`python tests/support/durations.py FOLDER` prints CI's table from the files that its sessions
have written there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

NAME = "durations-by-file"
SHOWN_FILES = 12
VARIABLE = "LAB_TEST_TIMES"  # the folder into which a session writes its times


class Durations:
    """Seconds of a session's tests, by file. A pytest plugin."""

    def __init__(self) -> None:
        from tests.support.workers import room  # not at the top: this file is a program, too

        self.room = room
        self.began = time.monotonic()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        if self.room(report.nodeid) == "kind":
            file += " on kind"
        self.seconds[file] += report.duration
        self.tests[file] += report.when == "call"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if sum(self.seconds.values()) < 60:
            return
        terminalreporter.section("seconds by file")
        for file, seconds in sorted(self.seconds.items(), key=itemgetter(1))[
            : -SHOWN_FILES - 1 : -1
        ]:
            terminalreporter.write_line(f"{seconds:7.1f}  {file} ({self.tests[file]} tests)")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        folder = os.environ.get(VARIABLE)
        if folder and not hasattr(session.config, "workerinput"):
            wall = time.monotonic() - self.began
            found = {"wall": wall, "seconds": self.seconds, "tests": self.tests}
            name = f"{time.time_ns()}-{os.getpid()}.json"
            Path(folder, name).write_text(json.dumps(found), encoding="utf-8")


def print_table(folder: Path) -> None:
    """Print the seconds of CI's phases and of the test files that took most."""
    print("\nseconds  what")
    if (phases := folder / "phases").exists():
        for line in phases.read_text("utf-8").splitlines():
            seconds, _, name = line.partition(" ")
            print(f"{seconds:>7}  {name}")
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        number = sum(found["tests"].values())
        print(f"{found['wall']:7.0f}  pytest: {number} tests; most by file, summed over workers:")
        for file, seconds in sorted(found["seconds"].items(), key=itemgetter(1))[
            : -SHOWN_FILES - 1 : -1
        ]:
            print(f"{seconds:15.0f}  {file} ({found['tests'][file]})")


if __name__ == "__main__":
    print_table(Path(sys.argv[1]))
