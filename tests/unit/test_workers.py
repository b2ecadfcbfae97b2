"""Which tests pytest-xdist gives to one worker, and which ports that worker may use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.config import KIT
from lab.home import ports
from tests.support import workers

OWN = sorted(workers.OWN_CLUSTER)


@pytest.mark.parametrize(
    ("nodeid", "room"),
    [
        ("tests/e2e/test_secrets.py::test_one[kind]", "kind"),
        ("tests/faults/test_kills.py::test_two[kind-7]", "kind"),
        ("tests/integration/test_kind.py::test_three[airflow-kind]", "kind"),
        ("tests/e2e/test_secrets.py::test_one[embedded]", "embedded"),
        ("tests/integration/test_values.py::test_six[kind]", "renderings"),
        ("tests/integration/test_steps.py::test_four", "tests/integration/test_steps.py"),
        ("tests/unit/test_choices.py::test_five[kind]", "tests/unit/test_choices.py"),
        *((nodeid, "kind") for nodeid in workers.OWN_CLUSTER),
    ],
)
def test_a_lab_is_one_worker_s_and_other_tests_go_by_files(nodeid: str, room: str) -> None:
    assert workers.room(nodeid) == room


def test_a_cluster_of_its_own_is_made_before_the_shared_one() -> None:
    others = [
        "tests/e2e/test_secrets.py::test_one[kind]",
        "tests/integration/test_steps.py::test_x",
    ]
    items = [cast("Any", SimpleNamespace(nodeid=nodeid)) for nodeid in (*others, *OWN)]
    assert [one.nodeid for one in sorted(items, key=workers.rank)] == [*OWN, *others]


@pytest.mark.parametrize("nodeid", OWN)
def test_what_has_a_cluster_of_its_own_is_there(nodeid: str) -> None:
    file, _, name = nodeid.partition("::")
    assert f"def {name}(" in (KIT / file).read_text("utf-8")


def test_workers_choose_among_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker has equally many, all within a lab's range."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    chosen = []
    for number in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ports, "FIRST", 11_000)
            patch.setattr(ports, "LAST", 22_000)
            config = SimpleNamespace(workerinput={"workerid": f"gw{number}"})
            workers.share_ports(cast("Any", config))
            chosen.append((ports.FIRST, ports.LAST))
    assert chosen == [(11_000, 14_665), (14_666, 18_331), (18_332, 21_997)]


def test_without_workers_all_ports_may_be_chosen() -> None:
    before = ports.FIRST, ports.LAST
    workers.share_ports(cast("Any", SimpleNamespace()))
    assert before == (ports.FIRST, ports.LAST)
