"""How long the tests of each file took: a table at the end of a session, and a file for CI's own.

The durations of parallel workers are summed: they are time of workers, not of the clock.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

NAME = "durations-by-file"
SHOWN = 12
VARIABLE = "LAB_TEST_TIMES"  # the folder in which a session leaves its times


class Durations:
    """Seconds of a session's tests, by file. A plugin of pytest's."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        if "[kind" in report.nodeid:
            file += " on kind"
        self.seconds[file] += report.duration
        self.tests[file] += report.when == "call"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if sum(self.seconds.values()) < 60:
            return
        terminalreporter.section("seconds by file")
        for file, seconds in sorted(self.seconds.items(), key=itemgetter(1))[: -SHOWN - 1 : -1]:
            terminalreporter.write_line(f"{seconds:7.1f}  {file} ({self.tests[file]} tests)")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        folder = os.environ.get(VARIABLE)
        if folder and not hasattr(session.config, "workerinput"):
            wall = time.monotonic() - self.began
            found = {"wall": wall, "seconds": self.seconds, "tests": self.tests}
            name = f"{time.time_ns()}-{os.getpid()}.json"
            Path(folder, name).write_text(json.dumps(found), encoding="utf-8")
