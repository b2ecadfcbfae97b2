"""The ledger: what was intended is written down before it is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from eks.ledger import Ledger
from lab.errors import HomeError


class Killed(Exception):
    """In the place of a `kill -9`."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "made" / "ledger.json")


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


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"kind": "x"}]'])
def test_a_ledger_that_can_not_be_read_is_said_and_left_alone(ledger: Ledger, text: str) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_text(text)
    with pytest.raises(HomeError, match="no ledger"):
        ledger.entries()
    with pytest.raises(HomeError), ledger.making("x", "a"):
        pass
    assert ledger.path.read_text() == text
