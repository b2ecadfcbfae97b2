"""How tests are distributed to pytest-xdist's workers.

All tests of a backend's lab go to one worker, which has the lab alone: what a test finds in the
data was made by its own runs, and an idle lab takes a tenth of a core. A test that makes a cluster
of its own goes there too, before that lab is made: two clusters at a time are too much for two
cores, and their probes fail. Other tests go by file, the longest first, so that no worker begins
one of those last.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.backends import NAMES
from lab.home import ports

if TYPE_CHECKING:
    import pytest

# Files whose tests use the same renderings: a worker makes each of them once.
RENDERINGS = {
    f"tests/integration/test_{name}.py"
    for name in ("manifests", "values", "eks_manifests", "eks_options", "eks_plan", "eks_promotion")
}
OWN_CLUSTER = {
    "tests/integration/test_own_project.py::test_a_project_is_proved_on_kind_and_planned_for_aws"
}
END_SECONDS = 180  # for a worker to end its labs, after Ctrl-C, too
# Ordered by their time on two cores; all others are shorter.
LONGEST = (
    "kind",
    "embedded",
    "tests/integration/test_own_project.py",
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
    if nodeid in OWN_CLUSTER:
        return "kind"
    parameters = name.partition("[")[2].removesuffix("]").split("-")
    if file in RENDERINGS:
        return "renderings"
    return next((known for known in NAMES if known in parameters), file)


def rank(item: pytest.Item) -> int:
    """Return a sort key that puts clusters of their own, then the tests of long rooms, first."""
    if item.nodeid in OWN_CLUSTER:
        return -1
    found = room(item.nodeid)
    return next((n for n, part in enumerate(LONGEST) if found.startswith(part)), len(LONGEST))


def make_scheduler(config: pytest.Config, log: object) -> object:
    """Return an xdist scheduler that gives a worker one room's tests after another's."""
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import NodeManager

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return room(nodeid)

    NodeManager.EXIT_TIMEOUT = END_SECONDS
    config.option.loadscopereorder = False  # the longest first, not the one with most tests
    return Rooms(config, log)


def share_ports(config: pytest.Config) -> None:
    """Give this worker's labs a range of ports of their own.

    A port is free until the service that was given it listens, some seconds later.
    """
    if not hasattr(config, "workerinput"):
        return
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    number = int(config.workerinput["workerid"].removeprefix("gw"))
    size = (ports.LAST - ports.FIRST) // count
    ports.FIRST += number * size
    ports.LAST = ports.FIRST + size - 1
