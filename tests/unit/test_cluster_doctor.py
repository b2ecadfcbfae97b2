"""What a machine lacks for a lab on kind, with a fix for each; and the choice of the backend."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from lab.backends import choose_backend, doctor
from lab.backends.embedded import backend as embedded
from lab.backends.kind import backend as kind
from lab.backends.kind import doctor as cluster_doctor
from lab.backends.kind import node
from lab.cluster import associations, cache, chart, images, tools
from lab.cluster.docker import EMBEDDED
from lab.cluster.images import Image
from lab.config import KIT, Config
from lab.errors import AssociationError, BackendError, DiskError, LabError, MachineError
from lab.home import state
from lab.home.state import State

GIB = 2**30
NAMES = [
    *("python", "git", "home", "docker", "memory", "disk", "inotify"),
    *("tools", "images", "chart", "roles", "dataset"),
]
DOCKER_ONLY = ["docker", "memory", "disk", "images"]  # the checks that fail without Docker
SAID = {
    "ServerVersion": "29.1.3",
    "MemTotal": 8 * GIB,
    "NCPU": 4,
    "CgroupVersion": "2",
    "DockerRootDir": "/",
}


def read_lock() -> dict[str, Image]:
    return images.read_lock(Config.from_environment({}))


class Docker:
    """A `docker` on PATH whose answers are files.

    They are `info`, `root`, `images` and `containers`; a file `down` makes every call fail, with
    what is in `printed` and in it.
    """

    SCRIPT = """#!/bin/sh
cd {folder}
[ -e down ] && {{ cat printed; cat down >&2; exit 1; }}
case "$*" in
    "info --format {{{{json .}}}}") cat info ;;
    "info --format {{{{.DockerRootDir}}}}") cat root ;;
    "image inspect --format {{{{.Id}}}} "*)
        grep -qxF "$5" images || {{ echo "Error: No such image: $5" >&2; exit 1; }}
        echo sha256:0 ;;
    "container inspect --format {{{{.State.Status}}}} "*)
        grep -qxF "$5" containers || {{ echo "Error: No such container: $5" >&2; exit 1; }}
        echo running ;;
    *) echo "unknown: $*" >&2; exit 125 ;;
esac
"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.program = folder / "docker"
        self.program.write_text(self.SCRIPT.format(folder=f"'{folder}'"))
        self.program.chmod(0o755)
        self.set_info()
        self.set_images(*(image.name for image in read_lock().values()))
        (folder / "containers").touch()

    def set_info(self, **values: object) -> None:
        said = {**SAID, **values}
        (self.folder / "info").write_text(json.dumps(said))
        (self.folder / "root").write_text(f"{said['DockerRootDir']}\n")

    def set_images(self, *names: str) -> None:
        (self.folder / "images").write_text("".join(f"{name}\n" for name in names))

    def set_container(self, container: str) -> None:
        (self.folder / "containers").write_text(f"{container}\n")

    def fail_with(self, printed: str, text: str) -> None:
        """Make every call print this to stdout, and the text to stderr, and fail."""
        (self.folder / "printed").write_text(printed)
        (self.folder / "down").write_text(text)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "lab")


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Return a Docker with all images, on a machine that lacks nothing, with every server up."""
    found = Docker(tmp_path / "docker")
    git = shutil.which("git")
    assert git
    (found.folder / "git").symlink_to(git)
    monkeypatch.setenv("PATH", f"{found.folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tools, "find_local", lambda _: None)
    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    set_free_disk(monkeypatch, 2**40)
    set_inotify_limits(monkeypatch, tmp_path / "inotify", {"instances": 512, "watches": 65536})
    return found


def raise_connection_error(url: str, **_: object) -> None:
    raise requests.ConnectionError(url)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "head", raise_connection_error)


def set_free_disk(monkeypatch: pytest.MonkeyPatch, size: int) -> list[Path]:
    """Make every disk have `size` bytes free; return the list of paths that are asked for."""
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=size)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def set_inotify_limits(
    monkeypatch: pytest.MonkeyPatch, folder: Path, limits: dict[str, int]
) -> None:
    """Set the kernel's limits; without any, their files do not exist."""
    folder.mkdir(exist_ok=True)
    for name, limit in limits.items():
        (folder / f"max_user_{name}").write_text(f"{limit}\n")

    def path(text: str) -> Path:
        return folder if text == "/proc/sys/fs/inotify" else Path(text)

    monkeypatch.setattr(cluster_doctor, "Path", path)


def catch_error(check: Any, config: Config, error: type[LabError] = MachineError) -> LabError:
    with pytest.raises(error) as caught:
        check(config)
    assert caught.value.fix
    return caught.value


# --- Roles --------------------------------------------------------------------------------------


def test_a_role_that_can_t_be_right_is_refused_before_anything_is_made(
    config: Config, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    for folder in (associations.POLICIES, associations.FILE.parent):
        shutil.copytree(KIT / folder, kit / folder, ignore=shutil.ignore_patterns("plugins"))
    given = replace(config, kit=kit)
    assert cluster_doctor.check_associations(given) == "5 service accounts have one"
    (kit / associations.POLICIES / "steps.json").write_text('{"Statement": [{"NotAction": "*"}]}')
    error = catch_error(cluster_doctor.check_associations, given, AssociationError)
    assert "steps.json can't be translated for MinIO: a statement has NotAction" in error.what
    (kit / associations.POLICIES / "steps.json").unlink()
    error = catch_error(cluster_doctor.check_associations, given, AssociationError)
    assert "line 5: there is no eks/policies/steps.json" in error.what
    assert not config.home.exists()


# --- All checks ---------------------------------------------------------------------------------


def test_a_machine_that_lacks_nothing(config: Config) -> None:
    findings = kind.diagnose(config)
    assert [finding.name for finding in findings] == NAMES
    assert not [finding for finding in findings if finding.error]
    assert all(finding.status for finding in findings)
    assert not config.home.exists()
    assert not cache.cache_path().exists()


def test_a_machine_without_docker(
    config: Config, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check that needs Docker fails with a known error and a fix."""
    docker.program.unlink()
    monkeypatch.setenv("PATH", str(docker.folder))
    found = {f.name: f.error for f in kind.diagnose(config) if f.error}
    assert list(found) == DOCKER_ONLY
    assert all(error.fix for error in found.values())
    assert found["docker"].what == "there is no docker"
    assert "--backend embedded" in found["docker"].fix
    with pytest.raises(MachineError, match="there is no docker"):
        doctor.refuse_unfit_machine(config, cluster_doctor.CHECKS)


USERMOD = "sudo usermod -aG docker $USER, then log in again"
SOCKET = "unix:///var/run/docker.sock"
DENIED = f"permission denied while trying to connect to the Docker daemon socket at {SOCKET}: Get "
DENIED += '"http://%2Fvar%2Frun%2Fdocker.sock/v1.50/info": dial unix: connect: permission denied'
NO_CONTEXT = 'Failed to initialize: unable to resolve docker endpoint: context "blue": context not'
NO_CONTEXT += " found: open /x/.docker/contexts/meta/2c26b/meta.json: no such file or directory"


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        (DENIED, "this user may not use Docker", USERMOD),
        (f"Got {DENIED}", "this user may not use Docker", USERMOD),
        (
            f"permission denied while trying to connect to the docker API at {SOCKET}",
            "this user may not use Docker",
            USERMOD,
        ),
        (
            f"ERROR: Cannot connect to the Docker daemon at {SOCKET}. Is the daemon running?",
            f"no Docker answers at {SOCKET}",
            "start Docker",
        ),
        (
            f"failed to connect to the docker API at {SOCKET}; check if the daemon is running: x",
            f"no Docker answers at {SOCKET}",
            "start Docker",
        ),
        ("Cannot connect to the Docker daemon.", "no Docker answers", "start Docker"),
        (NO_CONTEXT, "docker has no context 'blue'", "docker context use default"),
        (
            'current context "blue" is not found on the file system, please check your config file',
            "docker has no context 'blue'",
            "docker context use default",
        ),
        (
            "error during connect: lookup nowhere: no such host",
            "Docker does not answer: error during connect: lookup nowhere: no such host",
            "start Docker",
        ),
    ],
)
def test_a_docker_that_does_not_answer(
    config: Config, docker: Docker, text: str, what: str, fix: str
) -> None:
    """One sentence and what to do, whatever else the command line prints."""
    docker.fail_with(f"{json.dumps(SAID)}\n", text)
    found = {f.name: f.error for f in kind.diagnose(config) if f.error}
    assert list(found) == DOCKER_ONLY
    assert all(error.fix for error in found.values())
    error = catch_error(cluster_doctor.check_engine, config)
    assert (error.what, error.fix) == (what, f"{fix}{EMBEDDED}")
    assert choose_backend_name(config) == ("embedded", f"no kind: {what}; for kind: {fix}")


@pytest.mark.parametrize(
    ("variable", "text", "fix"),
    [
        ("DOCKER_HOST", "Cannot connect to the Docker daemon at tcp://a:1.", "unset DOCKER_HOST"),
        ("DOCKER_CONTEXT", NO_CONTEXT, "unset DOCKER_CONTEXT"),
    ],
)
def test_a_variable_that_names_no_docker_is_named(
    config: Config,
    docker: Docker,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    text: str,
    fix: str,
) -> None:
    monkeypatch.setenv(variable, "x")
    docker.fail_with("", text)
    assert fix in catch_error(cluster_doctor.check_engine, config).fix


def test_a_session_that_is_older_than_its_users_group(
    config: Config, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`usermod` was called, and nobody logged in again: the commonest second mistake."""
    user = pwd.getpwuid(os.getuid()).pw_name
    group = SimpleNamespace(gr_mem=[user], gr_gid=max(os.getgroups(), default=0) + 1)
    monkeypatch.setattr(grp, "getgrnam", {"docker": group}.__getitem__)
    docker.fail_with("", DENIED)
    fix = catch_error(cluster_doctor.check_engine, config).fix
    assert fix.startswith(f"log in again: this session began before {user} was in the group docker")


def test_a_docker_that_says_so_in_its_answer(config: Config, docker: Docker) -> None:
    """`docker info --format` of some versions succeeds without an engine."""
    docker.set_info(ServerErrors=[DENIED])
    error = catch_error(cluster_doctor.check_engine, config)
    assert error.what == "this user may not use Docker"
    docker.set_info(ServerErrors=["something else", "and more"])
    error = catch_error(cluster_doctor.check_engine, config)
    assert error.what == "Docker does not answer: something else; and more"


def test_a_podman_that_is_called_docker_is_refused(config: Config, docker: Docker) -> None:
    (docker.folder / "info").write_text(json.dumps({"host": {}, "version": {"Version": "5.4.0"}}))
    assert "Podman" in catch_error(cluster_doctor.check_engine, config).what


def test_a_docker_that_says_something_else_is_refused(config: Config, docker: Docker) -> None:
    (docker.folder / "info").write_text("Emulate Docker CLI using podman.\n")
    catch_error(cluster_doctor.check_engine, config, LabError)


def test_a_docker_of_no_known_version_is_not_a_crash(config: Config, docker: Docker) -> None:
    docker.set_info(ServerVersion="library-import")
    with pytest.raises(LabError):
        cluster_doctor.check_engine(config)


# --- Docker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["19.03.15", "1.13.1", ""])
def test_an_old_docker_is_refused(config: Config, docker: Docker, version: str) -> None:
    docker.set_info(ServerVersion=version)
    error = catch_error(cluster_doctor.check_engine, config)
    assert error.what == f"Docker is {version}; kind needs 20 or newer"


@pytest.mark.parametrize("version", ["20.10.24", "26.1.5+dfsg1", "29.0.0-rc.1"])
def test_a_newer_docker_is_taken(config: Config, docker: Docker, version: str) -> None:
    docker.set_info(ServerVersion=version)
    assert cluster_doctor.check_engine(config) == f"{version}, 4 cores, cgroup v2"


def test_cgroup_v1_is_noted(config: Config, docker: Docker) -> None:
    docker.set_info(CgroupVersion="1")
    assert cluster_doctor.check_engine(config) == (
        "29.1.3, 4 cores, cgroup v1, deprecated by Kubernetes: boot with cgroup v2"
    )


def test_too_little_memory_is_refused(config: Config, docker: Docker) -> None:
    docker.set_info(MemTotal=int(5.9 * GIB))  # what a machine with 6 GiB reports
    assert cluster_doctor.check_memory(config) == "5.9 GiB"
    docker.set_info(MemTotal=4 * GIB)
    error = catch_error(cluster_doctor.check_memory, config)
    assert error.what == "Docker has 4.0 GiB of memory; a lab on kind needs 6.0 GiB"
    assert "--backend embedded" in error.fix


# --- The disk -----------------------------------------------------------------------------------


def test_the_disk_is_dockers(
    config: Config, docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set_free_disk(monkeypatch, 12 * GIB)
    docker.set_info(DockerRootDir=str(docker.folder))
    assert cluster_doctor.check_disk(config) == "12.0 GiB free"
    docker.set_info(DockerRootDir="/nowhere/in/this/machine")
    cluster_doctor.check_disk(config)
    assert asked == [docker.folder, tmp_path]


def test_too_little_disk_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free_disk(monkeypatch, 12 * GIB - 1)
    error = catch_error(cluster_doctor.check_disk, config, DiskError)
    assert error.what == "12.0 GiB free at /; a lab on kind needs 12.0 GiB"
    assert "docker system df" in error.fix and "--backend embedded" in error.fix


def test_a_lab_that_is_there_needs_less_disk(
    config: Config, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.set_container(node.container_name(config))
    set_free_disk(monkeypatch, 2 * GIB)
    assert cluster_doctor.check_disk(config) == "2.0 GiB free"
    set_free_disk(monkeypatch, 2 * GIB - 1)
    catch_error(cluster_doctor.check_disk, config, DiskError)


# --- The kernel ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "what", "fix"),
    [
        (
            {"instances": 127, "watches": 65536},
            "fs.inotify.max_user_instances is 127; a node needs 128",
            "sudo sysctl fs.inotify.max_user_instances=512",
        ),
        (
            {"instances": 128, "watches": 8191},
            "fs.inotify.max_user_watches is 8191; a node needs 8192",
            "sudo sysctl fs.inotify.max_user_watches=32768",
        ),
    ],
)
def test_low_limits_on_watching_files_are_refused(
    limits: dict[str, int],
    what: str,
    fix: str,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_inotify_limits(monkeypatch, tmp_path / "low", limits)
    error = catch_error(cluster_doctor.check_inotify, config)
    assert (error.what, error.fix) == (what, fix)


def test_limits_that_will_do(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_inotify_limits(monkeypatch, tmp_path / "default", {"instances": 128, "watches": 8192})
    assert cluster_doctor.check_inotify(config) == "max_user_instances 128, max_user_watches 8192"
    set_inotify_limits(monkeypatch, tmp_path / "not-linux", {})
    assert cluster_doctor.check_inotify(config) == "Docker's own"


# --- Downloads and builds -----------------------------------------------------------------------


def test_tools_that_are_here_and_that_are_not(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster_doctor.check_tools(config).count("to be downloaded: https://") == 3
    monkeypatch.setattr(tools, "find_local", lambda name: tmp_path / name)
    monkeypatch.setattr(tools, "ask_version", lambda *_: "1.2.3")
    assert cluster_doctor.check_tools(config) == ", ".join(
        f"{name} 1.2.3 ({tmp_path / name})" for name in ("kind", "kubectl", "helm")
    )


def test_a_tool_that_can_not_be_downloaded_is_refused(config: Config, offline: None) -> None:
    error = catch_error(cluster_doctor.check_tools, config)
    url = tools.pinned_release(tools.read_pin("kind")).url
    assert error.what == f"{url} is needed, and its server does not answer"
    assert error.fix == (
        f"put kind {tools.read_pin('kind').accepts} on PATH, "
        "or use the lab without it: --backend embedded"
    )


def test_tools_that_are_here_need_no_network(
    config: Config, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "find_local", lambda name: tmp_path / name)
    monkeypatch.setattr(tools, "ask_version", lambda *_: "1.2.3")
    assert cluster_doctor.check_tools(config).startswith("kind 1.2.3 ")


def test_a_tool_that_can_not_be_had_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "os_and_arch", lambda: ("linux", "riscv64"))
    error = catch_error(cluster_doctor.check_tools, config)
    assert error.what == "no kind is pinned for linux on riscv64"
    assert error.fix.startswith("put kind ")


def test_images_that_are_all_here(config: Config, docker: Docker, offline: None) -> None:
    known = read_lock()
    docker.set_images(*(image.name for image in known.values()))
    assert cluster_doctor.check_images(config) == "all here"


def test_images_that_only_a_build_brings(config: Config, docker: Docker, offline: None) -> None:
    known = read_lock()
    docker.set_images(
        *(i.name for key, i in known.items() if key not in ("worker", "minio", "minio-source"))
    )
    found = cluster_doctor.check_images(config)
    said, _, names = found.partition(": ")
    assert said == "to be built, with a network"
    assert set(names.split(", ")) == {known["minio-source"].name, known["worker"].name}


def test_missing_images_that_no_registry_has_for_us(
    config: Config, docker: Docker, offline: None
) -> None:
    known = read_lock()
    gone = ("worker", "python", "gitea")
    docker.set_images(*(image.name for key, image in known.items() if key not in gone))
    error = catch_error(cluster_doctor.check_images, config)
    gitea, python = known["gitea"].name, known["python"].name
    assert error.what == (
        f"no registry answers for images that Docker does not hold: {gitea}, {python}"
    )
    assert error.fix == (
        f"docker pull {gitea}; docker pull {python}, or use the lab without it: --backend embedded"
    )


def test_missing_images_that_can_be_pulled(
    config: Config, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any answer is enough: most registries answer 401 without a login."""
    asked: list[str] = []
    monkeypatch.setattr(requests, "head", lambda url, **_: asked.append(url))
    docker.set_images()
    known = read_lock()
    public = [image.name for key, image in known.items() if not image.folder and key != "go"]
    said = cluster_doctor.check_images(config)
    assert said.startswith(f"to be pulled: {', '.join(public)}; to be built, with a network: ")
    assert set(asked) == {"https://registry-1.docker.io/v2/", "https://docker.gitea.com/v2/"}


def test_only_the_registry_that_is_silent_is_named(
    config: Config, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_for_the_hub_only(url: str, **_: object) -> None:
        if "docker.io" not in url:
            raise requests.Timeout(url)

    monkeypatch.setattr(requests, "head", answer_for_the_hub_only)
    docker.set_images()
    error = catch_error(cluster_doctor.check_images, config)
    assert error.what.endswith(f"does not hold: {read_lock()['gitea'].name}")


def test_where_the_chart_comes_from(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = chart.read_pin()["url"]
    assert cluster_doctor.check_chart(config) == f"to be downloaded: {url}"
    monkeypatch.setattr(requests, "head", raise_connection_error)
    error = catch_error(cluster_doctor.check_chart, config)
    assert error.what == f"{url} is needed, and its server does not answer"
    assert error.fix.startswith("LAB_AIRFLOW_CHART=/path/to/the.tgz, or use the lab without it")
    own = tmp_path / "own.tgz"
    error = catch_error(cluster_doctor.check_chart, replace(config, chart=own))
    assert error.what == f"LAB_AIRFLOW_CHART={own} is no file"
    own.touch()
    assert cluster_doctor.check_chart(replace(config, chart=own)) == str(own)


# --- The backend --------------------------------------------------------------------------------


def write_lab_state(config: Config, backend: str) -> None:
    """Write the state of a lab with that backend."""
    state.make_home(config)
    state.write_state(config, State(backend, "sqlite", "datasets/employees.csv", None, {}))


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "check", lambda _: None)


def choose_backend_name(config: Config) -> tuple[str, str]:
    """Return the name of the chosen backend and the reason."""
    backend, why = choose_backend(config)
    return backend.NAME, why


def test_kind_where_nothing_is_lacking(config: Config) -> None:
    assert choose_backend_name(config) == ("kind", "Docker answers, and there is room")
    assert not config.home.exists()


def test_without_docker_the_embedded_backend_says_why(config: Config, docker: Docker) -> None:
    docker.fail_with("", "it is down")
    assert choose_backend_name(config) == (
        "embedded",
        "no kind: Docker does not answer: it is down; for kind: start Docker",
    )


def test_with_too_little_room_the_embedded_backend_says_why(config: Config, docker: Docker) -> None:
    docker.set_info(MemTotal=2 * GIB)
    why = "no kind: Docker has 2.0 GiB of memory; a lab on kind needs 6.0 GiB"
    assert choose_backend_name(config) == ("embedded", f"{why}; for kind: give Docker more")


@pytest.mark.parametrize("backend", [embedded, kind])
def test_a_lab_that_is_there_keeps_its_backend(config: Config, fit: None, backend: Any) -> None:
    write_lab_state(config, backend.NAME)
    assert choose_backend_name(config) == (backend.NAME, "this lab was made so")


def test_sqlite_means_the_embedded_backend(config: Config, fit: None) -> None:
    assert choose_backend_name(replace(config, database="sqlite")) == (
        "embedded",
        "--database sqlite",
    )
    assert choose_backend_name(replace(config, database="postgresql"))[0] == "kind"


@pytest.mark.parametrize("backend", [embedded, kind])
def test_what_is_asked_for_is_taken(config: Config, docker: Docker, backend: Any) -> None:
    docker.fail_with("", "it is down")
    write_lab_state(config, embedded.NAME)
    assert choose_backend_name(replace(config, backend=backend.NAME)) == (backend.NAME, "asked for")


def test_an_unknown_backend_is_refused(config: Config) -> None:
    with pytest.raises(BackendError, match="unknown backend 'minikube'") as caught:
        choose_backend(replace(config, backend="minikube"))
    assert caught.value.fix == "choose auto, embedded, kind"


def test_kind_keeps_its_metadata_in_postgresql(config: Config) -> None:
    with pytest.raises(LabError, match="keeps Airflow's metadata in PostgreSQL") as caught:
        kind.check(replace(config, database="sqlite"))
    assert caught.value.fix == "leave --database out"
