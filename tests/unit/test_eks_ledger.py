"""The ledger: an intention is written before it is carried out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eks.ledger import Ledger
from lab.errors import EnvironmentFileError, HomeError

PLACE = {"account": "1", "region": "eu-central-1", "cluster": "c", "bucket": "b"}


class Killed(Exception):
    """Stands for a `kill -9`."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "made" / "ledger.json", PLACE)


def move_ledger(ledger: Ledger, **changed: str) -> Ledger:
    """Return the ledger of the same file for an environment whose place has changed."""
    return replace(ledger, place={**PLACE, **changed})


def kill_while_making(ledger: Ledger, name: str) -> None:
    with pytest.raises(Killed), ledger.making("x", name):
        raise Killed


def test_a_thing_is_intended_before_it_is_made_and_made_after(ledger: Ledger) -> None:
    with ledger.making("bucket", "b") as facts:
        during = ledger.find("bucket", "b")
        assert during is not None
        assert during.state == "intended"
        facts["arn"] = "arn:x"
    after = ledger.find("bucket", "b")
    assert after is not None
    assert (after.state, after.facts) == ("made", {"arn": "arn:x"})


def test_a_kill_while_making_leaves_the_intent(ledger: Ledger) -> None:
    with pytest.raises(Killed), ledger.making("role", "r"):
        raise Killed
    assert [(e.name, e.state) for e in ledger.entries("role")] == [("r", "intended")]


def test_what_was_made_stays_made_while_it_is_looked_at_again(ledger: Ledger) -> None:
    with ledger.making("role", "r") as facts:
        facts["arn"] = "arn:r"
    with pytest.raises(Killed), ledger.making("role", "r"):
        raise Killed
    (entry,) = ledger.entries()
    assert (entry.state, entry.facts) == ("made", {"arn": "arn:r"})


def test_entries_keep_their_order_and_are_forgotten_one_by_one(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        with ledger.making("x", name):
            pass
    ledger.forget("x", "b")
    ledger.forget("x", "b")
    assert [entry.name for entry in ledger.entries()] == ["a", "c"]


def test_only_its_owner_reads_it(ledger: Ledger) -> None:
    with ledger.making("x", "a"):
        pass
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    assert ledger.path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"kind": "x"}]', '{"place": 1, "entries": []}']
)
def test_a_ledger_that_can_not_be_read_is_said_and_left_alone(ledger: Ledger, text: str) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_text(text)
    with pytest.raises(HomeError, match="no ledger"):
        ledger.entries()
    with pytest.raises(HomeError), ledger.making("x", "a"):
        pass
    assert ledger.path.read_text() == text


# --- The place ------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", PLACE)
def test_what_was_made_elsewhere_is_neither_read_nor_forgotten(ledger: Ledger, word: str) -> None:
    kill_while_making(ledger, "a")
    before = ledger.path.read_text()
    other = move_ledger(ledger, **{word: "another"})
    for touch in (
        other.entries,
        lambda: other.find("x", "a"),
        lambda: other.forget("x", "a"),
        lambda: kill_while_making(other, "b"),
    ):
        with pytest.raises(EnvironmentFileError) as refused:
            touch()
        assert f"{word} {PLACE[word]}, the file says another" in refused.value.what
        assert "set it back" in refused.value.fix
    assert ledger.path.read_text() == before
    assert [entry.name for entry in ledger.entries()] == ["a"]


def test_an_empty_ledger_may_move(ledger: Ledger) -> None:
    kill_while_making(ledger, "a")
    ledger.forget("x", "a")
    other = move_ledger(ledger, region="us-west-2")
    kill_while_making(other, "b")
    assert [entry.name for entry in other.entries()] == ["b"]
    with pytest.raises(EnvironmentFileError, match="region us-west-2, the file says eu-central-1"):
        ledger.entries()
