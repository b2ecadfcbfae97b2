"""Sessions of nox in a small checkout: the real noxfile.py, pip and uv, and an index over HTTPS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.index import Index, build_wheel, serving_index, wheel_name

TREE = Path(__file__).resolve().parents[2]
FOLDERS = (".", "images/worker", "images/trainer")
# Builds a package of the checkout without any requirement: by copying the wheel beside it.
BACKEND = """
import pathlib, shutil

def build_editable(folder, config_settings=None, metadata_directory=None):
    wheel, = pathlib.Path(__file__).parent.glob("*.whl")
    shutil.copy(wheel, folder)
    return wheel.name
"""
PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "{package}"
version = "1.0"
"""
# What a session runs in place of ruff, mypy and import-linter.
PROGRAM = """#!python
import os, sys, yaml
print(os.path.basename(sys.argv[0]), "has yaml of", yaml.OWNER)
"""


@dataclass
class Checkout:
    """A small checkout with the real noxfile.py, and the person's variables."""

    folder: Path
    index: Index
    person: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Path:
        return self.folder / ".nox" / "lint"

    def nox(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the session `lint` with the person's variables."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        env = {**kept, "HOME": str(self.folder.parent), **self.person}
        command = [sys.executable, "-m", "nox", "-s", "lint", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """Return a checkout whose packages are in an index of the company, as pip's file says."""
    folder = tmp_path / "a checkout"
    for number, name in enumerate(FOLDERS):
        place = folder / name
        place.mkdir(parents=True)
        own = f"own{number}"
        (place / "pyproject.toml").write_text(PROJECT.format(package=own))
        (place / "backend.py").write_text(BACKEND)
        (place / wheel_name(own)).write_bytes(build_wheel(own, {f"{own}.pth": str(place)}))
    shutil.copy(TREE / "noxfile.py", folder)
    (folder / "requirements").mkdir()
    with serving_index(tmp_path) as index:
        uv = Path(sysconfig.get_path("scripts"), "uv")
        programs = {f"scripts/{name}": PROGRAM for name in ("ruff", "mypy", "lint-imports")}
        packages = {
            "uv": {"scripts/uv": f"#!/bin/sh\nexec '{uv}' \"$@\"\n"},
            "build": {"build_of_the_index.py": ""},
            "lab": {"yaml.py": "OWNER = 'the lock'\n"},
            "check": programs,
        }
        for name, files in packages.items():
            (folder / "requirements" / f"{name}.txt").write_text(index.add(name, files))
        pip = {"index-url": f"{index.address_with_password}/simple", "cert": index.certificate}
        yield Checkout(folder, index, {"PIP_CONFIG_FILE": write_pip_file(tmp_path, pip)})


def write_pip_file(folder: Path, settings: dict[str, object]) -> str:
    """Write a configuration of pip and return its path."""
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    return str(folder / "pip.conf")


def expect_success(done: subprocess.CompletedProcess[str]) -> str:
    """Return what nox printed, once it is known to have succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_persons_settings_reach_neither_the_installation_nor_the_session(
    checkout: Checkout, tmp_path: Path
) -> None:
    """All but how to reach the index: address, password and certificate, which pip's file has."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "yaml.py").write_text("OWNER = 'somebody'\n")
    with Path(checkout.person["PIP_CONFIG_FILE"]).open("a") as file:
        file.write("user = true\nconstraint = /missing.txt\n[install]\nno-binary = :all:\n")
    checkout.person |= {
        "PYTHONPATH": str(foreign),
        "PYTHONSAFEPATH": "1",
        "PYTHONOPTIMIZE": "2",
        "PIP_USER": "1",
        "PIP_TARGET": str(tmp_path / "target"),
        "PIP_REQUIRE_VIRTUALENV": "1",
        "UV_CONSTRAINT": "/missing.txt",
        "UV_OVERRIDE": "/missing.txt",
        "UV_PYTHON": "3.9",
        "UV_SYSTEM_PYTHON": "1",
        "UV_EXCLUDE_NEWER": "2001-01-01",
        "UV_NO_BINARY": "1",
        "VIRTUALENV_SYSTEM_SITE_PACKAGES": "1",
    }
    said = expect_success(checkout.nox())
    assert said.count("has yaml of the lock") == 4
    assert checkout.index.password not in said
    assert not (tmp_path / "target").exists()
    assert (
        "include-system-site-packages = false" in (checkout.environment / "pyvenv.cfg").read_text()
    )


def test_uv_alone_does_not_trust_the_company(checkout: Checkout) -> None:
    """What the session hands on is needed: without it the same uv refuses the same index."""
    uv = str(Path(sysconfig.get_path("scripts"), "uv"))
    command = [uv, "pip", "compile", "--no-config", "--no-cache", "--python", sys.executable, "-"]
    env = {"UV_DEFAULT_INDEX": f"{checkout.index.address_with_password}/simple"}
    env |= {"UV_HTTP_RETRIES": "0", "HOME": str(checkout.folder)}
    trusting = {**env, "SSL_CERT_FILE": str(checkout.index.certificate)}
    alone, told = (
        subprocess.run(command, input="lab", env=each, capture_output=True, text=True, check=False)
        for each in (env, trusting)
    )
    assert "UnknownIssuer" in alone.stderr
    assert told.returncode == 0, told.stderr


def test_installing_only_installs(checkout: Checkout) -> None:
    expect_success(checkout.nox("--install-only"))
    before = len(checkout.index.asked)
    assert before
    assert "has yaml of the lock" in expect_success(checkout.nox())
    assert len(checkout.index.asked) == before


def test_an_installation_that_did_not_happen_is_not_believed(checkout: Checkout) -> None:
    checkout.index.withheld.add("check")
    assert checkout.nox().returncode
    checkout.index.withheld.clear()
    checkout.nox("--no-install")
    assert "has yaml of the lock" in expect_success(checkout.nox())
    for program in (checkout.environment / "bin").glob("python*"):
        program.unlink()
    assert "has yaml of the lock" in expect_success(checkout.nox())
