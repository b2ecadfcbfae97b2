"""Ports are free, chosen once, and nobody's else."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.errors import PortError
from lab.home import ports

NAMES = tuple(f"service-{number}" for number in range(8))
COMPANION = 10_000


@contextmanager
def listening(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    with socket.create_server((host, port)) as listener:
        yield listener.getsockname()[1]


def find_free_port() -> int:
    with listening() as port:
        return port


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave ten ports to choose from and return the first."""
    first = next(
        p for p in range(ports.FIRST, ports.LAST, 20) if all(map(ports.is_free, range(p, p + 20)))
    )
    monkeypatch.setattr(ports, "FIRST", first)
    monkeypatch.setattr(ports, "LAST", first + 9)
    monkeypatch.setattr(ports, "GRACE_SECONDS", 0)
    return first


def test_each_name_gets_a_free_port_whose_companion_is_free_too() -> None:
    chosen = ports.choose_ports(NAMES, {}, COMPANION)
    assert tuple(chosen) == NAMES
    numbers = [number + extra for number in chosen.values() for extra in (0, COMPANION)]
    assert len(set(numbers)) == 2 * len(NAMES)
    assert all(map(ports.is_free, numbers))
    assert all(ports.FIRST <= number <= ports.LAST for number in chosen.values())


def test_no_chosen_port_is_one_that_a_system_gives_to_connections() -> None:
    assert ports.LAST + COMPANION < 32_768


def test_no_port_is_the_companion_of_another(narrow: int) -> None:
    for _ in range(50):
        chosen = ports.choose_ports(NAMES[:3], {}, 1)
        numbers = [number + extra for number in chosen.values() for extra in (0, 1)]
        assert len(set(numbers)) == 6, chosen


def test_a_held_port_is_not_chosen(narrow: int) -> None:
    with listening(narrow + 4):
        chosen = {ports.choose_ports(["a"], {}, 100)["a"] for _ in range(100)}
    assert chosen <= set(range(narrow, narrow + 10)) - {narrow + 4}


def test_a_port_with_a_held_companion_is_not_chosen(
    narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "LAST", narrow)
    assert ports.choose_ports(["a"], {}, 5) == {"a": narrow}
    with listening(narrow + 5), pytest.raises(PortError, match=f"no free port from {narrow}"):
        ports.choose_ports(["a"], {}, 5)


def test_a_pinned_port_is_kept_and_given_to_nobody_else(narrow: int) -> None:
    for _ in range(20):
        chosen = ports.choose_ports(NAMES[:4], {NAMES[2]: narrow}, 1)
        assert chosen[NAMES[2]] == narrow
        assert not {narrow, narrow + 1} & {chosen[NAMES[n]] for n in (0, 1, 3)}


def test_a_pinned_port_that_is_held_is_refused_with_its_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "GRACE_SECONDS", 0)
    with listening() as port, pytest.raises(PortError) as caught:
        ports.choose_ports(NAMES, {"git-server": port}, COMPANION)
    assert f"port {port} of git-server is held by pid {os.getpid()} (" in caught.value.what
    assert "LAB_PORT_GIT_SERVER=NUMBER" in caught.value.fix


def test_a_port_that_is_let_go_in_a_moment_is_waited_for() -> None:
    with listening() as port, socket.create_server(("127.0.0.1", 0)) as other:
        assert not ports.is_free(port)
        threading.Timer(0.4, other.close).start()
        ports.refuse_held({"other": other.getsockname()[1]})


def test_held_ports_are_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "GRACE_SECONDS", 0.3)
    began = time.monotonic()
    with listening() as port, pytest.raises(PortError):
        ports.refuse_held({"a": find_free_port(), "b": port})
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - the case under test
def test_a_port_is_held_by_who_listens_here_or_everywhere(host: str) -> None:
    with listening(host=host) as port:
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_a_port_is_free_right_after_its_server_closed_a_connection() -> None:
    """The system keeps the connection for a minute, but a restarted service needs its port."""
    with listening() as port, socket.create_connection(("127.0.0.1", port)):
        pass
    assert ports.is_free(port)


def test_a_port_without_a_holder_has_another_process() -> None:
    assert ports.describe_holder(find_free_port()) == "another process"
