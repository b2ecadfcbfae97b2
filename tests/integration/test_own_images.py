"""The environments of a project's own images on embedded, made by the real uv without a network.

The index is a folder of small wheels that pip's settings name: they hold for these, too.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from lab.backends.embedded import own_images
from lab.config import Config
from lab.errors import LabError
from lab.home import state
from tests.support.own_project import make_project, write

METADATA = "Metadata-Version: 2.1\nName: {0}\nVersion: {1}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PACKAGE = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "churn-steps"
version = "1"
dependencies = ["no-index-has-this"]

[project.scripts]
clean = "churn_steps:main"

[tool.hatch.build.targets.wheel]
include = ["churn_steps.py"]
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of wheels, the only place where pip is told to look for any."""
    folder = tmp_path / "index"
    folder.mkdir()
    add_wheel(folder, "greeting", "1")
    add_wheel(folder, "yaml", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return folder


def add_wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel with one module that says its version."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", METADATA.format(name, version))
        wheel.writestr(f"{info}/WHEEL", WHEEL)
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def config(tmp_path: Path, index: Path) -> Config:
    """Return the configuration of a lab of a project, whose home has been made."""
    config = make_project(tmp_path / "Größe, 実験 1")
    state.make_home(config)
    return config


def require(config: Config, text: str) -> Path:
    """Write what the project's image requires; return its folder."""
    folder = config.root / "images" / "steps"
    write(folder / "requirements.txt", text)
    return folder


def run_python(config: Config, code: str) -> str:
    """Run the image's Python; return what it printed."""
    python = own_images.folder(config) / "steps" / "bin" / "python"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd="/", timeout=60
    ).stdout.strip()


def place_of(config: Config) -> Path:
    return (own_images.folder(config) / "steps").resolve()


def hash_of(file: Path) -> str:
    return f"--hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


# --- What a step finds in it ----------------------------------------------------------------------


def test_own_packages_come_first_then_the_folder_then_all_of_the_lab(
    config: Config, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"{name}==1 {hash_of(index / f'{name}-1-py3-none-any.whl')}"
        for name in ("greeting", "yaml")
    ]
    folder = require(config, "\n".join(lines))
    write(folder / "yaml.py", "version = 'of the folder'\n")
    write(folder / "greeting_too.py", "version = 2\n")
    own_images.prepare(config)
    code = "import greeting, yaml, greeting_too, dataset_steps, lab, attrs; print({})"
    versions = "greeting.version, yaml.version, greeting_too.version"
    assert run_python(config, code.format(versions)) == "1 1 2"
    assert capsys.readouterr().out == ""


def test_requirements_without_hashes_are_taken_and_said(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    require(config, "greeting\n")
    own_images.prepare(config)
    assert run_python(config, "import greeting; print(greeting.version)") == "1"
    said = "  image steps: requirements.txt has no hashes: any file of that version is installed\n"
    assert capsys.readouterr().out == said


def test_a_package_is_installed_without_what_it_depends_on(config: Config) -> None:
    folder = config.root / "images" / "steps"
    write(folder / "pyproject.toml", PACKAGE)
    write(folder / "churn_steps.py", "def main():\n    print('clean')\n")
    before = {path.name for path in folder.iterdir()}
    own_images.prepare(config)
    command = place_of(config) / "bin" / "clean"
    done = subprocess.run([command], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "clean\n"
    installed = run_python(config, "import churn_steps; print(churn_steps.__file__)")
    assert Path(installed).resolve().is_relative_to(place_of(config))
    assert {path.name for path in folder.iterdir()} == before, "a build writes beside no source"


def test_a_dockerfile_alone_is_said_to_be_docker_s(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.root / "images" / "steps"
    shutil.rmtree(folder)
    write(folder / "Dockerfile", "FROM alpine\n")
    own_images.prepare(config)
    assert "its Dockerfile is for Docker" in capsys.readouterr().out


# --- When it is made ------------------------------------------------------------------------------


def test_it_is_made_again_when_what_it_is_made_of_has_changed(config: Config, index: Path) -> None:
    """Modules are used where they are. What steps may still run in stays for one change."""
    folder = require(config, "greeting==1\n")
    own_images.prepare(config)
    first = place_of(config)
    write(folder / "churn_steps.py", "version = 2\n")
    own_images.prepare(config)
    assert place_of(config) == first
    assert run_python(config, "import churn_steps; print(churn_steps.version)") == "2"
    add_wheel(index, "greeting", "2")
    require(config, "greeting==2\n")
    own_images.prepare(config)
    second = place_of(config)
    assert run_python(config, "import greeting; print(greeting.version)") == "2"
    assert first.exists()
    require(config, "greeting==1\n")
    own_images.prepare(config)
    assert run_python(config, "import greeting; print(greeting.version)") == "1"
    assert second.exists()
    assert not first.exists()


def test_what_a_killed_command_left_is_never_taken_for_a_whole_one(config: Config) -> None:
    require(config, "greeting\n")
    (image,) = config.project.images.values()
    half = own_images.folder(config) / own_images.BUILT / "steps"
    half /= f"{own_images.fingerprint(image)}-0"
    write(half / "bin" / "python", "half")
    own_images.prepare(config)
    assert run_python(config, "import greeting; print(greeting.version)") == "1"
    assert not half.exists()


def test_one_whose_python_is_gone_is_made_again(config: Config) -> None:
    own_images.prepare(config)
    python = place_of(config) / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    own_images.prepare(config)
    assert run_python(config, "print(1)") == "1"


def test_that_of_an_image_that_is_not_declared_any_more_goes(config: Config) -> None:
    own_images.prepare(config)
    file = config.root / "lab.toml"
    file.write_text(file.read_text("utf-8").partition("[images.steps]")[0], "utf-8")
    own_images.prepare(config)
    assert list(own_images.folder(config).rglob("*")) == [own_images.folder(config) / ".built"]


# --- What can't be installed ----------------------------------------------------------------------


def test_another_file_than_the_hash_says_is_refused_and_the_one_before_stays(
    config: Config,
) -> None:
    require(config, "greeting\n")
    own_images.prepare(config)
    before = place_of(config)
    require(config, f"greeting==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(LabError, match="the image steps can't be installed: uv pip install") as no:
        own_images.prepare(config)
    assert "[images.steps] of lab.toml" in no.value.fix
    assert isinstance(no.value.__cause__, LabError)
    assert "Hash mismatch" in no.value.__cause__.output
    assert place_of(config) == before


def test_an_index_s_password_is_in_no_argument_and_no_log(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:hunter2@127.0.0.1:9/simple")
    require(config, "somebody-s-own==1\n")
    with pytest.raises(LabError) as refused:
        own_images.prepare(config)
    cause = refused.value.__cause__
    assert isinstance(cause, LabError)
    assert "127.0.0.1:9" in cause.output, "pip's index is uv's"
    assert "hunter2" not in f"{refused.value.what} {cause.output}"
