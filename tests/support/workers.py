"""How tests are shared among pytest-xdist's workers.

All tests of a backend's lab go to one worker, which has it alone: what a test finds in the data
was made by its own runs, and an idle lab takes a tenth of a core. Other tests go by
files, the longest first, so that no worker is left with one of them at the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.backends import NAMES
from lab.home import ports

if TYPE_CHECKING:
    import pytest

# Files whose tests ask for the same renderings: helm and kubectl make each once in a worker.
RENDERINGS = {
    f"tests/integration/test_{name}.py"
    for name in ("manifests", "values", "eks_manifests", "eks_options", "eks_plan", "eks_promotion")
}
END_SECONDS = 180  # for a worker to end its labs, after Ctrl-C, too
# By how long they take on two cores; all others are shorter.
LONGEST = (
    "kind",
    "embedded",
    "renderings",
    "tests/integration/test_gitea.py",
    "tests/integration/test_eks_apply.py",
    "tests/integration/test_steps.py",
    "tests/integration/test_eks_cluster.py",
    "tests/integration/test_model_steps.py",
    "tests/integration/test_lifecycle.py",
    "tests/integration/test_eks_identity.py",
    "tests/integration/",
)


def room(nodeid: str) -> str:
    """Return the name of what a test shares: a backend's lab, the renderings, or its file."""
    file, _, name = nodeid.partition("::")
    if file.startswith("tests/unit/"):
        return file
    parameters = name.partition("[")[2].removesuffix("]").split("-")
    if file in RENDERINGS:
        return "renderings"
    return next((known for known in NAMES if known in parameters), file)


def rank(item: pytest.Item) -> int:
    """Return a key by which the tests of the longest rooms come first."""
    found = room(item.nodeid)
    return next((n for n, part in enumerate(LONGEST) if found.startswith(part)), len(LONGEST))


def scheduler(config: pytest.Config, log: object) -> object:
    """Return what gives a worker the tests of one room after another."""
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import NodeManager

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return room(nodeid)

    NodeManager.EXIT_TIMEOUT = END_SECONDS
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
