"""What CONTRIBUTING.md asks for is found where it is missing: of a step, a backend, a lock."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lab.__main__ import app
from lab.backends import NAMES
from lab.backends.embedded import backend as embedded
from lab.backends.kind import backend as kind
from lab.config import Config
from tests.support.control import make_control

TREE = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((TREE / "pyproject.toml").read_text("utf-8"))
WORKER, TRAINER = (
    TREE / "images" / "worker" / "dataset_steps",
    TREE / "images" / "trainer" / "model_steps",
)
ONCE = {"begin", "import", "inspect"}  # a step that no forked process runs


# --- Steps --------------------------------------------------------------------------------------


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def find_parsers(tree: ast.Module) -> set[str]:
    """Return the names of the subcommands that a module's parser has."""
    return {
        str(ast.literal_eval(node.args[0]))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "steps.add_parser"
    }


def find_cases(tree: ast.Module) -> set[str]:
    """Return the names that a module's `match` has a case for."""
    return {
        str(ast.literal_eval(node.pattern.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.match_case) and isinstance(node.pattern, ast.MatchValue)
    }


@pytest.mark.parametrize("package", [WORKER, TRAINER], ids=lambda path: path.name)
def test_each_subcommand_runs_a_step(package: Path) -> None:
    tree = parse(package / "__main__.py")
    assert len(find_parsers(tree)) >= 3
    assert find_parsers(tree) == find_cases(tree)


def test_a_forked_step_has_been_imported() -> None:
    imported = {
        alias.name
        for node in ast.walk(parse(WORKER / "preload.py"))
        if isinstance(node, ast.ImportFrom) and node.module == "dataset_steps"
        for alias in node.names
    }
    assert imported == {"__main__", *find_parsers(parse(WORKER / "__main__.py"))} - ONCE


# --- Backends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_tests_can_kill_the_parts_of_each_backend(name: str, tmp_path: Path) -> None:
    control = make_control(Config(home=tmp_path, backend=name))
    assert control.config.backend == name


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_is_in_the_help_the_markers_and_the_layers(name: str) -> None:
    from typer.main import get_command

    (option,) = (one for one in get_command(app).params if one.name == "backend")
    assert name in str(getattr(option, "help", ""))
    markers = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
    assert [one for one in markers if one.startswith(f"{name}:")]
    (contract,) = (
        one
        for one in PROJECT["tool"]["importlinter"]["contracts"]
        if one.get("containers") == ["lab.backends"]
    )
    assert name in contract["layers"][0].split(" | ")


def test_the_reference_has_every_port() -> None:
    text = (TREE / "docs" / "reference.md").read_text("utf-8")
    table = text.partition("## Ports\n")[2].partition("\n## ")[0]
    named: set[str] = set()
    for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE):
        first, *more = re.findall(r"`([^`]+)`", cell)
        base = first.partition("-")[0]
        named |= {first, *(f"{base}{suffix}" for suffix in more)}
    assert named == {*embedded.PORTS, *kind.PORTS}


# --- Locks --------------------------------------------------------------------------------------


def read_pins(lock: str) -> dict[str, Version]:
    """Return the version of each package of a lock."""
    text = (TREE / "requirements" / f"{lock}.txt").read_text("utf-8")
    pins = re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pins}


def list_requirements(lock: str) -> list[str]:
    """Return what pyproject.toml asks for in that lock."""
    groups, project = PROJECT["dependency-groups"], PROJECT["project"]
    asked: dict[str, list[str]] = {
        "uv": groups["bootstrap"],
        "build": groups["build"],
        "lab": [*project["dependencies"], *groups["build"]],
        "eks": [*project["dependencies"], *groups["eks"]],
        "check": [*project["dependencies"], *groups["check"], *groups["eks"]],
        "e2e": groups["e2e"],
        "postgresql": project["optional-dependencies"]["postgresql"],
    }
    return asked[lock]


@pytest.mark.parametrize("lock", ["uv", "build", "lab", "eks", "check", "e2e", "postgresql"])
def test_a_lock_has_what_the_project_asks_for(lock: str) -> None:
    """`nox -s lock` was run since pyproject.toml asked for another package or version."""
    pins = read_pins(lock)
    wanted = [Requirement(one) for one in list_requirements(lock)]
    assert wanted
    assert not [
        str(one)
        for one in wanted
        if (version := pins.get(canonicalize_name(one.name))) is None
        or version not in one.specifier
    ]


@pytest.mark.parametrize("image", ["worker", "trainer"])
def test_the_kit_asks_for_what_its_steps_ask_for(image: str) -> None:
    """They are packages of its wheel: on the embedded backend there is no other installation."""
    text = (TREE / "images" / image / "pyproject.toml").read_text("utf-8")
    asked = set(tomllib.loads(text)["project"]["dependencies"]) - {"dataset-steps"}
    assert asked <= set(PROJECT["project"]["dependencies"])
