"""What kind does again when a forward has ended: only what nothing answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import pytest

from lab.backends.kind import gitea, minio, services
from lab.client.git import run_git
from lab.cluster import workloads
from lab.errors import LabError
from tests.support.histories import build_lab
from tests.support.serving import Silent, serving

NOWHERE = "http://127.0.0.1:9"


class Failing(Silent, BaseHTTPRequestHandler):
    """Answers each request with 503."""

    def do_GET(self) -> None:
        self.send_error(503)


@pytest.fixture
def failing() -> Iterator[str]:
    """Return the URL of a server that answers, though with a failure."""
    with serving(Failing) as url:
        yield url


def ask_gitea(url: str) -> object:
    return gitea.api_with_password(url, "lab", "a-password").get("version")


def ask_minio(url: str) -> None:
    account = minio.Account("steps", "another-password", {"Statement": []})
    minio.prepare(url, "lab", "a-password", "datasets", [account])


def list_branches(url: str) -> str:
    return run_git(build_lab(Path(url), ""), "ls-remote", url, cwd=Path.cwd())


def failure_of(ask: Callable[[str], object], url: str) -> LabError:
    with pytest.raises(LabError) as caught:
        ask(url)
    return caught.value


@pytest.mark.parametrize("ask", [ask_gitea, ask_minio, list_branches])
def test_nothing_answers_where_nobody_listens(ask: Callable[[str], object]) -> None:
    assert services.has_no_answer(failure_of(ask, NOWHERE))


@pytest.mark.parametrize("ask", [ask_gitea, list_branches])
def test_a_failure_is_an_answer(ask: Callable[[str], object], failing: str) -> None:
    assert not services.has_no_answer(failure_of(ask, failing))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the workloads waited for; each is ready at once."""
    names: list[str] = []
    monkeypatch.setattr(services, "wait_for_workload", lambda _, found: names.append(found.name))
    return names


def test_what_nothing_answered_is_done_again_when_it_does(waits: list[str]) -> None:
    tries: list[int] = []

    def ask() -> None:
        tries.append(1)
        if len(tries) == 1:
            ask_gitea(NOWHERE)

    services.call_through_door(cast("Any", None), workloads.GITEA, ask)
    assert (len(tries), waits) == (2, ["gitea", "gitea"])


def test_what_was_answered_is_not_done_again(waits: list[str], failing: str) -> None:
    with pytest.raises(LabError, match="503"):
        services.call_through_door(cast("Any", None), workloads.GITEA, lambda: ask_gitea(failing))
    assert waits == ["gitea"]
