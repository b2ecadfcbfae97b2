"""How tests are shared among pytest-xdist's workers.

All tests of a lab go to one worker, which has it alone: what a test finds in the datasets'
repository was made by its own runs. Other tests go by files, the longest first, so that no worker
is left with one of them at the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab import ports
from lab.backends import BACKENDS

if TYPE_CHECKING:
    import pytest

# By how long they take on two cores; all others are shorter.
LONGEST = (
    *reversed(BACKENDS),
    "tests/integration/test_lifecycle.py",
    "tests/integration/test_steps.py",
    "tests/integration/test_model_steps.py",
    "tests/integration/test_eks_identity.py",
    "tests/integration/test_eks_cluster.py",
)
NO_LABS = "tests/unit/"


def room(nodeid: str) -> str:
    """Return the name of what a test shares with others: its lab, or its file."""
    file, _, name = nodeid.partition("::")
    if file.startswith(NO_LABS):
        return file
    return next((known for known in BACKENDS if f"[{known}" in name), file)


def rank(item: pytest.Item) -> int:
    """Return a key by which the tests of the longest rooms come first."""
    found = room(item.nodeid)
    return LONGEST.index(found) if found in LONGEST else len(LONGEST)


def scheduler(config: pytest.Config, log: object) -> object:
    """Return what gives a worker the tests of one room after another."""
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return room(nodeid)

    config.option.loadscopereorder = False  # the longest first, not the one with most tests
    return Rooms(config, log)


def share_ports(config: pytest.Config) -> None:
    """Let this worker's labs choose among ports that no other worker's labs choose among.

    A port is free until the service that was given it listens, some seconds later.
    """
    if not hasattr(config, "workerinput"):
        return
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    number = int(config.workerinput["workerid"].removeprefix("gw"))
    size = (ports.LAST - ports.FIRST) // count
    ports.FIRST += number * size
    ports.LAST = ports.FIRST + size - 1
