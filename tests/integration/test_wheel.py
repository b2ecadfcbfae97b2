"""The kit's wheel: what is in it, and that an environment needs nothing else of the kit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab.cluster import images
from tests.support.wheel import build_wheel, install_wheel, leave_checkout

TREE = Path(__file__).resolve().parents[2]
PACKAGES = {"lab", "eks", "dataset_steps", "model_steps", "reading_steps"}
PROGRAMS = {"lab", "dataset-steps", "model-steps", "reading-steps"}
OURS = {"mlops-lab", "dataset-steps", "model-steps", "reading-steps"}
FOLDERS = ("manifests", "images", "eks", "requirements", "dags")
SINGLE = ("lab.toml", "README.md", "CHANGELOG.md")
# What a checkout may hold beside the kit, and a wheel may not.
LEFTOVERS = (
    ".lab/secrets/key",
    "attestation.json",
    "dags/__pycache__/steps.cpython-313.pyc",
    "dist/mlops_lab-0.1.0-py3-none-any.whl",
    "eks/.lab-eks/staging/password",
    "images/worker/.cache/hidden",
    "images/worker/dataset_steps/__pycache__/pull.cpython-313.pyc",
    "lab/__pycache__/config.cpython-313.pyc",
    "manifests/base/.env",
    "tests/secret.txt",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def read_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as packed:
        return packed.namelist()


def read_checksums(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as packed:
        return {entry.filename: entry.CRC for entry in packed.infolist()}


def read_about(wheel: Path, name: str) -> str:
    """Return a file that tells about the package."""
    with zipfile.ZipFile(wheel) as packed:
        (path,) = (one for one in packed.namelist() if one.endswith(f".dist-info/{name}"))
        return packed.read(path).decode()


# --- What is in it --------------------------------------------------------------------------------


def test_the_wheel_has_the_packages_and_nothing_beside_them(wheel: Path) -> None:
    names = read_names(wheel)
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    assert len(names) == len(set(names))
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def list_resources() -> Iterator[Path]:
    """Yield the files that git tracks of the kit's folders; what eks/ has of code is a package."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *FOLDERS, *SINGLE],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout: nothing says which files belong to it")
    for name in filter(None, listed.stdout.split("\0")):
        if (TREE / name).is_file() and not re.fullmatch(r"eks/.*\.py", name):
            yield Path(name)


def test_the_kits_resources_are_those_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names, found = set(packed.namelist()), list(list_resources())
        assert len(found) > 100
        assert not [path for path in found if f"lab/kit/{path.as_posix()}" not in names]
        assert not [
            path
            for path in found
            if packed.read(f"lab/kit/{path.as_posix()}") != (TREE / path).read_bytes()
        ]


def test_the_images_have_the_same_tags(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    folders = [file.parent.relative_to(TREE) for file in sorted(TREE.glob("images/*/Dockerfile"))]
    assert len(folders) >= 3
    tags = [images.content_tag(TREE / folder, {}) for folder in folders]
    assert [images.content_tag(tmp_path / "lab" / "kit" / one, {}) for one in folders] == tags


def test_the_wheel_asks_no_index_for_a_name_of_ours(wheel: Path) -> None:
    """A stranger could have registered it: neither a requirement nor a lock has one."""
    asked = Parser().parsestr(read_about(wheel, "METADATA")).get_all("Requires-Dist") or []
    names = {canonicalize_name(Requirement(str(one)).name) for one in asked}
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if re.fullmatch(r"lab/kit/(requirements|images/[^/]+)/[^/]+\.txt", name):
                text = packed.read(name).decode()
                pinned = re.findall(r"^([\w.-]+)(?:\[.*\])?==", text, re.MULTILINE)
                assert pinned
                names |= set(map(canonicalize_name, pinned))
    assert len(names) > 100
    assert not names & OURS


def test_the_wheel_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    """In another folder, later, with what else a person has there: secrets, caches, a lab."""
    clean, used = tmp_path / "clean", tmp_path / "a used checkout"
    copy_checkout(clean)
    wheel = build_wheel(tmp_path / "first", clean)
    clean.rename(used)
    for name in LEFTOVERS:
        (used / name).parent.mkdir(parents=True, exist_ok=True)
        (used / name).write_text("of this machine only")
    for file in used.glob("lab/*.py"):
        os.utime(file, (0, 0))
    again = build_wheel(tmp_path / "second", used)
    assert read_checksums(again) == read_checksums(wheel)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def copy_checkout(folder: Path) -> None:
    """Copy what a wheel is built of."""
    names = ["lab", *FOLDERS, *SINGLE, "pyproject.toml", "hatch_build.py", ".gitignore"]
    folder.mkdir()
    for name in names:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, folder / name)
        else:
            shutil.copy(TREE / name, folder)


def test_an_editable_installation_leads_to_the_checkout(tmp_path: Path) -> None:
    """It copies nothing: a change to the checkout is a change to what is installed."""
    build = "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=TREE, check=True, timeout=120)
    (editable,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(editable) as packed:
        (path,) = (name for name in packed.namelist() if ".dist-info/" not in name)
        folders = packed.read(path).decode().splitlines()
    assert path.endswith(".pth")
    assert {name for folder in folders for name in PACKAGES if (Path(folder) / name).is_dir()} == (
        PACKAGES
    )


# --- Installed ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel and what its locks name."""

    environment: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment outside of the checkout, with no variable of ours."""
        return subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=self.environment.parent,
            env=leave_checkout(self.environment, self.environment.parent),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return an environment into which the wheel was installed, hash by hash."""
    environment = tmp_path_factory.mktemp("a stranger") / "environment"
    install_wheel(wheel, environment, "lab", "eks", "e2e")
    return Installed(environment)


def expect_success(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_programs_run(installed: Installed, wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert expect_success(installed.run("lab", "--version")).split() == ["mlops-lab", version]
    for program in sorted(PROGRAMS):
        assert "usage" in expect_success(installed.run(program, "--help")).lower()


WHERE = """
import json, sys
import lab.__main__, lab.backends.embedded.backend, lab.backends.kind.backend, eks.__main__
import dataset_steps.preload, model_steps.__main__, reading_steps.__main__
from lab.config import KIT
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"kit": str(KIT), "path": sys.path, "files": files}))
"""


def test_nothing_of_the_checkout_is_imported(installed: Installed) -> None:
    found = json.loads(expect_success(installed.run("python", "-c", WHERE)))
    files = {name: file for name, file in found["files"].items() if file}
    ours = {name: Path(files[name]) for name in files if name.partition(".")[0] in PACKAGES}
    assert len(ours) > 60
    assert not [file for file in ours.values() if not file.is_relative_to(installed.environment)]
    assert not [name for name in files if str(files[name]).startswith(f"{TREE}/")]
    assert not [one for one in found["path"] if one.startswith(str(TREE))]
    assert Path(found["kit"]).is_relative_to(installed.environment)
    assert (Path(found["kit"]) / "manifests" / "base" / "kustomization.yaml").is_file()


def test_outside_of_a_project_there_is_a_way_to_one(installed: Installed) -> None:
    """The kit's own resources are no project of anybody's."""
    done = installed.run("lab", "status")
    assert done.returncode == 18, done.stdout + done.stderr
    assert "lab init" in done.stderr
    assert not list(installed.environment.rglob(".lab"))


def test_the_packages_of_the_locks_fit_together(installed: Installed) -> None:
    """What the wheel asks for is there, in a version that it takes."""
    check = (
        "from importlib.metadata import requires, version\n"
        "from packaging.requirements import Requirement\n"
        "for one in map(Requirement, requires('mlops-lab')):\n"
        "    if not one.marker or one.marker.evaluate({'extra': ''}):\n"
        "        assert version(one.name) in one.specifier, one\n"
    )
    expect_success(installed.run("python", "-c", check))


def test_pytest_gets_the_plugin(installed: Installed) -> None:
    entries = (
        "from importlib.metadata import entry_points\n"
        "(plugin,) = entry_points(group='pytest11', name='mlops_lab')\n"
        "print(plugin.load().__file__)\n"
    )
    where = expect_success(installed.run("python", "-c", entries)).strip()
    assert Path(where).is_relative_to(installed.environment)
    assert "no tests ran" in installed.run("pytest", "-p", "no:cacheprovider").stdout
