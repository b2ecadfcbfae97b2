"""What a long report begins with, where something has failed."""

from __future__ import annotations

from typing import Any

import pytest

from lab.testing.failures import Failures

pytest_plugins = ["pytester"]

FAILING = """
import pytest

def test_wrong():
    raise ValueError("one line of it" + chr(10) + "another line")

@pytest.fixture
def broken():
    raise KeyError("a fixture")

def test_without(broken):
    pass

@pytest.fixture
def lab_config():
    return "choices"

def test_with(lab_config):
    assert not lab_config

def test_right():
    pass
"""


RIGHT = """
import pytest

@pytest.fixture
def lab_config():
    return "choices"

def test_right(lab_config):
    pass
"""


@pytest.fixture(autouse=True)
def _without_installed_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no plugin of the environment: the kit's own has these failures, too."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def report(pytester: pytest.Pytester, tests: str) -> list[str]:
    plugins: list[Any] = [Failures()]
    pytester.makepyfile(test_it=tests)
    return pytester.runpytest_inprocess(plugins=plugins).outlines


def test_failures_are_told_in_short_before_their_tracebacks(pytester: pytest.Pytester) -> None:
    said = report(pytester, FAILING)
    (short,) = [n for n, line in enumerate(said) if "failed, in short" in line]
    long = next(n for n, line in enumerate(said) if "= ERRORS =" in line)
    assert [line for line in said[short + 1 : long] if line] == [
        "test_it.py::test_wrong (call): ValueError: one line of it … another line",
        "test_it.py::test_without (setup): KeyError: 'a fixture'",
        "test_it.py::test_with (call): AssertionError: assert not 'choices'",
        "    the lab can't be asked: 'str' object has no attribute 'backend'",
    ]


def test_a_session_without_a_lab_is_left_alone(pytester: pytest.Pytester) -> None:
    said = report(pytester, "def test_wrong(): assert False")
    assert not [line for line in said if "in short" in line]


def test_nothing_is_told_where_nothing_failed(pytester: pytest.Pytester) -> None:
    said = report(pytester, RIGHT)
    assert not [line for line in said if "in short" in line]


def test_what_is_said_is_not_captured(pytester: pytest.Pytester) -> None:
    fixture = "@pytest.fixture(autouse=True)\ndef kept(request):\n    yield\n    {}"
    saying = fixture.format("print_line(request.config, 'kept: the lab'); print('not this')")
    tests = "import pytest\nfrom lab.testing.failures import print_line\n"
    tests += f"{saying}\ndef test_it(): pass"
    said = report(pytester, tests)
    assert "kept: the lab" in said
    assert "not this" not in said
