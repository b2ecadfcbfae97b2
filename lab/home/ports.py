"""Free ports, chosen once and kept."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import psutil

from lab.config import PORT_PREFIX
from lab.errors import PortError, ServiceError
from lab.wait import NotYet, wait_until

# Below the ephemeral ranges of Linux (32768) and macOS (49152), so that no outgoing connection
# takes a chosen port while its service restarts; and such that port + 10000 stays below too.
FIRST, LAST = 11_000, 22_000
HIGHEST = 65_535
# A service that was killed a moment ago may still be holding its port.
GRACE_SECONDS = 2


def choose_ports(
    names: Iterable[str],
    pinned: Mapping[str, int],
    companion: int,
    others: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int]:
    """Choose a free port for each name: the pinned one, or any with port + `companion` free too.

    None of the `others` is chosen. Raises PortError when a pinned port is held by another process.
    """
    refuse_held(pinned)
    chosen = {name: pinned[name] for name in names if name in pinned}
    for name in names:
        if name not in chosen:
            held = (*chosen.values(), *others.values())
            taken = {port + extra for port in held for extra in (0, companion)}
            chosen[name] = pick_port(taken, companion)
    return chosen


def pick_port(taken: set[int], companion: int) -> int:
    for _ in range(1000):
        port = random.randint(FIRST, LAST)
        pair = {port, port + companion}
        if pair.isdisjoint(taken) and all(map(is_free, pair)):
            return port
    raise PortError(f"no free port from {FIRST} to {LAST}", "end some of the programs that listen")


def refuse_held(ports: Mapping[str, int]) -> None:
    """Raise PortError, naming the holder, when one of these ports is taken and stays so."""
    for name, port in ports.items():
        try:
            wait_until(lambda port=port: expect_free(port), what=name, timeout=GRACE_SECONDS)  # type: ignore[misc]
        except ServiceError:
            raise PortError(
                f"port {port} of {name} is held by {describe_holder(port)}",
                f"end that process, or choose another port: {port_variable(name)}=NUMBER",
            ) from None


def expect_free(port: int) -> None:
    """Raise NotYet while the port is taken."""
    if not is_free(port):
        raise NotYet(f"port {port} is taken")


def is_free(port: int) -> bool:
    """Return whether 127.0.0.1:`port` can be listened on now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def describe_holder(port: int) -> str:
    """Describe the process that listens on `port`, as far as this user may see it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def port_variable(name: str) -> str:
    """Return the environment variable that pins the port of a service."""
    return PORT_PREFIX + name.upper().replace("-", "_")
