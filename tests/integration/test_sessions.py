"""Sessions of nox in a small checkout and a small project: real pip and uv, an index over HTTPS."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.index import Index, build_wheel, serving_index, wheel_name

TREE = Path(__file__).resolve().parents[2]
# What nox imports.
SESSIONS = ("lab/__init__.py", "lab/installing.py", "lab/progress.py", "lab/sessions.py")
# Builds the package of the checkout without any requirement: by copying the wheel beside it.
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
name = "mlops-lab"
version = "1.0"
"""
# What a session runs in place of ruff, mypy and import-linter.
PROGRAM = """#!python
import os, sys, yaml
print(os.path.basename(sys.argv[0]), "has yaml of", yaml.OWNER)
"""


# What takes the place of pytest, and of the kit: says what it was told.
TELLING = """
import json, os, sys
print(json.dumps([__file__, sys.argv[1:], os.environ.get("LAB_PROJECT")]))
"""
NOXFILE = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent / "kit" / "mlops_lab-1.0-py3-none-any.whl"))
from lab.sessions import e2e, eks, lab, lock
"""


@dataclass
class Checkout:
    """A small checkout with the real noxfile.py, or a project; and the person's variables."""

    folder: Path
    index: Index
    person: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Path:
        return self.folder / ".nox" / "lint"

    def nox(self, *arguments: str, session: str = "lint") -> subprocess.CompletedProcess[str]:
        """Run a session with the person's variables."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        env = {**kept, "HOME": str(self.folder.parent), **self.person}
        command = [sys.executable, "-m", "nox", "-s", session, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Return the company's index, with a small package in place of all that a lock names."""
    uv = Path(sysconfig.get_path("scripts"), "uv")
    programs = {f"scripts/{name}": PROGRAM for name in ("ruff", "mypy", "lint-imports")}
    with serving_index(tmp_path) as served:
        served.add("uv", {"scripts/uv": f"#!/bin/sh\nexec '{uv}' \"$@\"\n"})
        served.add("build", {"build_of_the_index.py": ""})
        served.add("lab", {"yaml.py": "OWNER = 'the lock'\n"})
        served.add("check", programs)
        served.add("e2e", {"scripts/pytest": f"#!python{TELLING}"})
        yield served


@pytest.fixture
def person(tmp_path: Path, index: Index) -> dict[str, str]:
    """Return the variables of a person whose pip knows the index by a file."""
    pip = {"index-url": f"{index.address_with_password}/simple", "cert": index.certificate}
    return {"PIP_CONFIG_FILE": write_pip_file(tmp_path, pip)}


@pytest.fixture
def checkout(tmp_path: Path, index: Index, person: dict[str, str]) -> Checkout:
    """Return a checkout whose packages are in an index of the company, as pip's file says."""
    folder = tmp_path / "a checkout"
    (folder / "lab").mkdir(parents=True)
    (folder / "requirements").mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    own = build_wheel("mlops_lab", {"mlops_lab.pth": str(folder)})
    (folder / wheel_name("mlops_lab")).write_bytes(own)
    for name in ("noxfile.py", "hatch_build.py", *SESSIONS):
        shutil.copy(TREE / name, folder / name)
    for name in index.wheels:
        (folder / "requirements" / f"{name}.txt").write_text(index.lock(name))
    return Checkout(folder, index, person)


@pytest.fixture
def project(tmp_path: Path, index: Index, person: dict[str, str]) -> Checkout:
    """Return somebody's project, with a wheel of a small kit: its sessions are the real ones."""
    folder = tmp_path / "a project"
    (folder / "kit").mkdir(parents=True)
    (folder / "noxfile.py").write_text(NOXFILE)
    bring_kit(folder, index)
    return Checkout(folder, index, person)


def bring_kit(project: Path, index: Index, more: str = "") -> None:
    """Put a wheel of the kit into a project, and its hash into lab.toml."""
    files = {name: (TREE / name).read_text("utf-8") for name in SESSIONS}
    files["lab/__main__.py"] = TELLING + more
    files |= {f"lab/kit/requirements/{name}.txt": index.lock(name) for name in index.wheels}
    wheel = build_wheel("mlops_lab", files)
    (project / "kit" / wheel_name("mlops_lab")).write_bytes(wheel)
    said = f'[kit]\nversion = "1.0"\nsha256 = "{hashlib.sha256(wheel).hexdigest()}"\n'
    (project / "lab.toml").write_text(said)


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


# --- A project of one's own -----------------------------------------------------------------------


def read_telling(done: subprocess.CompletedProcess[str]) -> Any:
    """Return what the program of a session was told, once it is known to have succeeded."""
    (line,) = (one for one in expect_success(done).splitlines() if one.startswith("["))
    return json.loads(line)


def test_a_session_of_a_project_runs_the_kit_of_its_wheel_in_its_folder(project: Checkout) -> None:
    """Whatever project the person has named for other commands."""
    project.person |= {"LAB_PROJECT": "/elsewhere"}
    file, words, told = read_telling(project.nox("--", "status", session="lab"))
    assert words == ["status"]
    assert Path(told) == project.folder
    assert Path(file).is_relative_to(project.folder / ".nox" / "lab" / "lib")
    before = len(project.index.asked)
    assert read_telling(project.nox(session="lab"))[1] == []
    assert len(project.index.asked) == before
    # Another wheel of the same version is installed anew.
    bring_kit(project.folder, project.index, more="print('a newer kit')\n")
    assert "a newer kit" in expect_success(project.nox(session="lab"))


def test_the_tests_of_a_project_need_no_more_than_pytest(project: Checkout) -> None:
    _, words, told = read_telling(project.nox("--", "-k", "mine", session="e2e"))
    assert words == ["tests/e2e", "-k", "mine"]
    assert Path(told) == project.folder
    assert "/simple/e2e/" in project.index.asked
    assert "/simple/check/" not in project.index.asked


@pytest.mark.parametrize("session", ["lab", "e2e", "lock"])
def test_a_wheel_that_lab_toml_does_not_name_installs_nothing(
    project: Checkout, session: str
) -> None:
    write_requirements(project, "lab\n")
    (project.folder / "lab.toml").write_text(f'[kit]\nsha256 = "{"0" * 64}"\n')
    other = refused(project.nox("--no-venv", session=session))
    assert "it is not the wheel that this project was made with. Try: git checkout" in other
    (project.folder / "lab.toml").write_text('[kit]\nversion = "1.0"\n')
    none = refused(project.nox("--no-venv", session=session))
    assert "does not say which wheel is the kit's (lacks 'sha256')" in none
    assert project.index.asked == []


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line by which a session was ended."""
    assert done.returncode, done.stdout + done.stderr
    (line,) = (one for one in done.stderr.splitlines() if "aborted" in one)
    assert "Traceback" not in done.stderr
    return line


def test_a_session_that_is_not_imported_is_the_projects_own(project: Checkout) -> None:
    own = NOXFILE.replace("e2e, eks, lab, lock", "lab")
    own += "import nox\n@nox.session\ndef e2e(session):\n    print('of my own')\n"
    (project.folder / "noxfile.py").write_text(own)
    said = expect_success(project.nox("--no-venv", session="e2e"))
    assert "of my own" in said
    assert "already been registered" not in said
    assert "not found: lock" in project.nox(session="lock").stderr


def write_requirements(project: Checkout, text: str) -> Path:
    """Write what an image of the project needs; return the folder of the image."""
    steps = project.folder / "images" / "steps"
    steps.mkdir(parents=True, exist_ok=True)
    (steps / "requirements.in").write_text(text)
    return steps


def test_the_images_packages_are_locked_by_the_kits_versions(project: Checkout) -> None:
    """With their hashes, and without a word of the index."""
    project.index.add("duck", {"duck.py": ""})
    steps = write_requirements(project, "duck\nlab\n")
    expect_success(project.nox(session="lock"))
    locked = (steps / "requirements.txt").read_text()
    assert re.findall(r"^(\S+)==1.0", locked, re.MULTILINE) == ["duck", "lab"]
    assert locked.count(f"--hash=sha256:{project.index.hash_of('duck')}") == 1
    assert "://" not in locked
    write_requirements(project, "lab==0.9\n")
    assert project.nox(session="lock").returncode
    assert (steps / "requirements.txt").read_text() == locked
