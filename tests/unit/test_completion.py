"""What a shell completes comes at once, or does not come."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import pytest

from lab import completion
from lab.backends import NAMES
from lab.backends.embedded import backend as embedded
from lab.config import Config
from lab.errors import LabError
from lab.home import state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home that the completion looks at: there is no lab in it."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "lab"))
    return tmp_path / "lab"


def test_choices_are_completed() -> None:
    assert completion.complete_backend("") == ["auto", *NAMES]
    assert completion.complete_backend("emb") == ["embedded"]
    assert completion.complete_database("p") == ["postgresql"]
    assert completion.complete_database("oracle") == []


def test_services_are_those_of_the_lab_that_is_there(home: Path) -> None:
    assert completion.complete_service("") == []
    config = Config(home=home)
    with state.exclusive_lock(config):
        embedded.settle(config)
    assert completion.complete_service("airflow-s") == ["airflow-scheduler"]
    assert completion.complete_dag("") == []  # it does not run


def test_nothing_is_completed_where_a_choice_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PORT_GITSERVER", "http")
    assert completion.complete_service("") == []


def test_a_lab_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "PATIENCE", 0.1)
    forever = Event()
    began = time.monotonic()
    assert completion.call_quickly(lambda _: [str(forever.wait(60))]) == []
    assert time.monotonic() - began < 5
    forever.set()


@pytest.mark.parametrize("error", [LabError("it does not run", "lab up"), OSError("no route")])
def test_what_fails_completes_nothing(error: Exception) -> None:
    def list_words(config: Config) -> list[str]:
        raise error

    assert completion.call_quickly(list_words) == []
