"""Each kind of error has a text, a fix and an exit code of its own."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from lab import errors
from lab.errors import DatasetError, LabError

DEFINED = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind is not Path]
KINDS = [kind for kind in DEFINED if issubclass(kind, LabError)]
TAKEN = {0, 2, 130}  # success, a wrong command line, Ctrl-C


def test_every_kind_is_an_error_of_the_lab() -> None:
    assert len(KINDS) > 20
    assert KINDS == DEFINED


def test_exit_codes_are_unique_and_free() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert not TAKEN & set(codes)
    assert all(0 < code < 126 for code in codes)  # shells use the codes above


def test_what_is_wrong_with_a_dataset_has_the_thirties() -> None:
    retired = {34, 35, 36, 39}
    thirties = set(range(30, 40)) - retired
    assert {kind.exit_code for kind in KINDS if issubclass(kind, DatasetError)} == thirties


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_says_what_happened_and_what_to_do(kind: type[LabError]) -> None:
    error = kind("the roof leaks", "put a bucket under it", Path("/var/log/roof"))
    assert str(error) == error.what == "the roof leaks"
    assert error.fix == "put a bucket under it"
    assert error.log == Path("/var/log/roof")
    assert kind("a", "b").log is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_says_in_a_sentence_what_it_means(kind: type[LabError]) -> None:
    assert (kind.__doc__ or "").endswith(".")
