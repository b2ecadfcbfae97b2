"""The words that a shell completes: within two seconds, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread

from lab.backends import NAMES, Backend, find_backend
from lab.client import runs
from lab.config import DATABASES, Config
from lab.errors import LabError
from lab.home import state

PATIENCE = 2.0  # seconds


def complete_backend(incomplete: str) -> list[str]:
    return choose(("auto", *NAMES), incomplete)


def complete_database(incomplete: str) -> list[str]:
    return choose(DATABASES, incomplete)


def complete_dag(incomplete: str) -> list[str]:
    """Return the ids of the running lab's DAGs; none where no lab runs, or it answers too late."""
    return choose(call_quickly(list_dag_ids), incomplete)


def complete_service(incomplete: str) -> list[str]:
    """Return the names of the lab's services, running or not."""
    return choose(call_quickly(list_services), incomplete)


def choose(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def call_quickly(list_words: Callable[[Config], list[str]]) -> list[str]:
    """Return what the function returns, or nothing if it fails or takes more than PATIENCE.

    One that hangs is left behind, in a thread that does not outlive this process.
    """
    found: list[str] = []

    def call() -> None:
        with suppress(LabError, OSError):
            found.extend(list_words(Config.from_environment()))

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return list(found)


def list_dag_ids(config: Config) -> list[str]:
    return runs.glance_at_dag_ids(recorded_backend(config).connect(config))


def list_services(config: Config) -> list[str]:
    return [service.name for service, _ in recorded_backend(config).list_services(config)]


def recorded_backend(config: Config) -> Backend:
    return find_backend(state.require_state(config).backend)
