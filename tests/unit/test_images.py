"""The lock of images, and the calls of docker and kind that bring the images and a node.

Both commands are scripts: their state is a file, and they fail on any other call.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tarfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from lab import project
from lab.backends.kind import node
from lab.cluster import docker, images, manifests, tools
from lab.cluster.images import Image
from lab.config import KIT, Config
from lab.errors import LabError, MachineError, ProjectError
from lab.home import state

CONTENT = re.compile("[0-9a-f]{16}")
PINNED, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64

LOCK = f"""
[node]
name = "kindest/node:v1"
digest = "{PINNED}"
[postgresql]
name = "postgres:17"
digest = "{PINNED}"
[gitea]
name = "docker.gitea.com/gitea:1.26"
[minio]
name = "fork/minio:1"
digest = "{PINNED}"
instead = "minio-source"
[minio-source]
name = "lab/minio"
folder = "minio"
arguments = {{ GO_IMAGE = "go", VERSION = "v0" }}
[airflow]
name = "apache/airflow:3"
[pod-identity]
name = "lab/pod-identity"
folder = "pod-identity"
arguments = {{ PYTHON_IMAGE = "python" }}
[worker]
name = "lab/worker"
folder = "worker"
arguments = {{ PYTHON_IMAGE = "python" }}
[trainer]
name = "lab/trainer"
folder = "trainer"
arguments = {{ WORKER_IMAGE = "worker" }}
[go]
name = "golang:1"
digest = "{PINNED}"
[python]
name = "python:3"
"""

PROJECT = """
[kit]
version = "1"
[lab]
name = "churn"
dag = "churn"
[data.orders]
path = "orders"
"""

# Calls that begin with an entry of `unanswered` fail; a failed `save` leaves half a file.
DOCKER = r"""
import io, json, os, sys, tarfile

file, *argv = sys.argv[1:]
now = json.load(open(file))
now["calls"].append(argv)
images, containers = now["images"], now["containers"]

def write(path, text):
    with open(path, "w") as file:
        file.write(text)

def end(code=0, text=""):
    write(file, json.dumps(now))
    print(text, file=sys.stderr if code else sys.stdout)
    sys.exit(code)

def held(name):
    if name not in images:
        end(1, f"Error response from daemon: No such image: {name}")
    return images[name]

if " ".join(argv).startswith(tuple(now["unanswered"])):
    if argv[0] == "save":
        write(argv[2], "half")
    end(1, "Error response from daemon: it is tired")
match argv:
    case ["image", "inspect", "--format", "{{.Id}}", name]:
        end(0, held(name)["id"])
    case ["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", name]:
        end(0, held(name) and "linux/arm64")
    case ["image", "inspect", "--format", "{{.Size}}", name]:
        end(0, "7000000" if held(name) else "")
    case ["image", "inspect", "--format", "{{json .RepoDigests}}", name]:
        end(0, json.dumps([f"{name.rpartition(':')[0]}@{d}" for d in held(name)["digests"]]))
    case ["pull", "--quiet", name]:
        digest = name.partition("@")[2]
        images[name] = {"id": "sha256:0", "digests": [digest] if digest else []}
        end(0, name)
    case ["tag", source, name]:
        images[name] = held(source)
        end()
    case ["build", "--tag", name, *arguments, folder]:
        for flag, given in zip(arguments[::2], arguments[1::2], strict=True):
            assert flag == "--build-arg", flag
            if given.partition("=")[0].endswith("_IMAGE"):
                held(given.partition("=")[2])
        assert os.path.isfile(folder + "/Dockerfile"), folder
        now["built"] = {
            os.path.relpath(os.path.join(place, file), folder): oct(
                os.stat(os.path.join(place, file)).st_mode & 0o777
            )
            for place, _, files in os.walk(folder)
            for file in files
        }
        images[name] = {"id": "sha256:0", "digests": []}
        end()
    case ["save", "--output", path, name]:
        write(path, "half")
        now["seen"].append([p for p in os.listdir(os.path.dirname(path)) if p.endswith(".tar")])
        write(path, held(name)["id"])
        if members := held(name).get("members"):
            with tarfile.open(path, "w") as archive:
                for member in map(tarfile.TarInfo, members):
                    member.size = len(member.name)
                    archive.addfile(member, io.BytesIO(member.name.encode()))
        end()
    case ["container", "inspect", "--format", "{{.State.Status}}", name]:
        if name not in containers:
            end(1, f"Error response from daemon: No such container: {name}")
        end(0, containers[name])
    case ["start", name]:
        containers[name] = "running"
        end(0, name)
    case ["stop", "-t", _, name]:
        containers[name] = "exited"
        end(0, name)
    case ["exec", _, "ctr", "--namespace", "k8s.io", "images", "ls", "-q"]:
        end(0, "\n".join(now["loaded"]))
    case ["exec", _, "ctr", "--namespace", "k8s.io", "images", "import", *flags, path]:
        end(0, path)
end(125, f"docker: this is no command that the lab may use: {argv}")
"""

KIND = r"""
import json, os, sys

file, *argv = sys.argv[1:]
now = json.load(open(file))
now["calls"].append(["kind", *argv])
now["environments"].append(dict(os.environ))

def write(path, text):
    with open(path, "w") as file:
        file.write(text)

match argv:
    case ["create", "cluster", "--name", name, "--image", _, "--config", layout,
          "--kubeconfig", path, "--wait", _]:
        now["containers"][f"{name}-control-plane"] = "running"
        write(file, json.dumps(now))
        if "kind create" in now["unanswered"]:
            sys.exit("ERROR: failed to create cluster")
        assert os.path.isfile(layout)
        write(path, name)
    case ["delete", "cluster", "--name", name]:
        now["containers"].pop(f"{name}-control-plane", None)
        write(file, json.dumps(now))
    case _:
        sys.exit(f"kind: this is no command that the lab may use: {argv}")
"""


@dataclass(frozen=True)
class Engine:
    """The fake Docker: what it holds, and the calls that it got."""

    file: Path

    @property
    def state(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.file.read_text()))

    def change(self, **values: object) -> None:
        self.file.write_text(json.dumps({**self.state, **values}))

    def add_images(self, *names: str, id_: str = "1" * 64, **more: Sequence[str]) -> None:
        """Have the fake hold these images; `more` are their `digests` and archives' `members`."""
        entry = {"id": f"sha256:{id_}", "digests": [], **more}
        self.change(images={**self.state["images"], **dict.fromkeys(names, entry)})

    @property
    def names(self) -> set[str]:
        return set(self.state["images"])

    @property
    def changes(self) -> list[list[str]]:
        """The calls, without those that only read."""
        looks = (["image", "inspect"], ["container", "inspect"])
        return [call for call in self.state["calls"] if call[:2] not in looks]


def write_program(folder: Path, name: str, code: str, file: Path) -> None:
    """Write a program that runs `code` with `file` as its first argument."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    program = folder / name
    words = shlex.join(map(str, (sys.executable, "-ISs", f"{program}.py", file)))
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine(tmp_path / "engine.json")
    lists = ("calls", "unanswered", "seen", "environments", "loaded")
    empty: dict[str, object] = {"images": {}, "containers": {}, **{name: [] for name in lists}}
    found.file.write_text(json.dumps(empty))
    write_program(tmp_path / "bin", "docker", DOCKER, found.file)
    write_program(tmp_path / "bin", "kind", KIND, found.file)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(tools, "find", lambda name: tmp_path / "bin" / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a checkout with a lock and four images to build."""
    tree = tmp_path / "tree"
    for name in ("minio", "pod-identity", "worker", "trainer"):
        folder = tree / "images" / name / "package"
        folder.mkdir(parents=True)
        (folder.parent / "Dockerfile").write_text("FROM somewhere\n")
        (folder / "code.py").write_text("x = 1\n")
    (tree / images.LOCK).write_text(LOCK)
    for path in images.OWN:
        (tree / path).parent.mkdir(exist_ok=True)
        (tree / path).write_text(f"{path.name} of the kit\nARG WORKER_IMAGE\n")
    write_project(tree)
    return tree


def write_project(tree: Path, images: str = "") -> None:
    """Write the lab.toml of the project `churn` into the tree, with these tables of images."""
    (tree / "lab.toml").write_text(PROJECT + images)


def config_of(tree: Path) -> Config:
    """Return the configuration of a lab whose project and whose kit are in the tree."""
    return Config(home=tree.parent / "lab", root=tree, kit=tree)


@pytest.fixture
def config(tmp_path: Path, engine: Engine) -> Config:
    config = Config(home=tmp_path / "lab")
    state.make_home(config)
    return config


# --- The lock -----------------------------------------------------------------------------------


def test_this_checkouts_lock() -> None:
    known = images.read_lock(Config(home=Path("unused")))
    bases = {"minio-source", "go", "python"}
    assert set(known) == {"node", *images.STORES, *images.AIRFLOW, *bases}
    for image in known.values():
        assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+", image.name), image.name
        assert image.tag != "latest"
        assert image.digest is None or re.fullmatch("sha256:[0-9a-f]{64}", image.digest)
        if image.folder:
            assert (image.folder / "Dockerfile").is_file()
            assert CONTENT.fullmatch(image.tag)
            assert image.digest is None
    entries = tomllib.loads((KIT / images.LOCK).read_text("utf-8"))
    assert {key for key in entries if "folder" in entries[key]} == {
        *("minio-source", "pod-identity", "worker", "trainer"),
    }


def test_a_locks_images(tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    assert known["postgresql"] == Image("postgresql", "postgres:17", PINNED, None, {})
    assert known["gitea"].digest is None
    assert (known["gitea"].repository, known["gitea"].tag) == ("docker.gitea.com/gitea", "1.26")
    minio = known["minio-source"]
    assert known["minio"].instead == minio
    assert (minio.repository, minio.folder) == ("lab/minio", tree / "images" / "minio")
    assert CONTENT.fullmatch(minio.tag)


def test_an_argument_that_names_an_image_is_that_images_name(tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    assert known["minio-source"].arguments == {"GO_IMAGE": "golang:1", "VERSION": "v0"}
    assert known["worker"].arguments == {"PYTHON_IMAGE": "python:3"}
    assert known["trainer"].arguments == {"WORKER_IMAGE": known["worker"].name}


def test_the_trainer_has_what_its_base_has() -> None:
    """Otherwise a package would be installed in two versions, and chance decide which is used."""
    worker, trainer = (
        set((KIT / "images" / name / "requirements.txt").read_text("utf-8").splitlines())
        for name in ("worker", "trainer")
    )
    assert worker <= trainer
    assert any(line.startswith("scikit-learn==") for line in trainer - worker)


def test_a_registrys_port_is_not_taken_for_a_tag() -> None:
    image = Image("x", "localhost:5000/lab/x:v1", None, None, {})
    assert (image.repository, image.tag) == ("localhost:5000/lab/x", "v1")


# --- The tag of a built image -------------------------------------------------------------------


def worker_tag(tree: Path) -> str:
    return images.read_lock(config_of(tree))["worker"].tag


def trainer_tag(tree: Path) -> str:
    return images.read_lock(config_of(tree))["trainer"].tag


CHANGES: list[Callable[[Path], object]] = [
    lambda folder: (folder / "package" / "code.py").write_text("x = 2\n"),
    lambda folder: (folder / "package" / "code.py").write_text("x = 1"),
    lambda folder: (folder / "package" / "code.py").rename(folder / "package" / "cod.py"),
    lambda folder: (folder / "package" / "code.py").rename(folder / "code.py"),
    lambda folder: (folder / "package" / "code.py").unlink(),
    lambda folder: (folder / "package" / "empty").touch(),
    lambda folder: (folder / "Dockerfile").write_text("FROM elsewhere\n"),
    lambda folder: (folder.parent / "lock.toml").write_text(LOCK.replace("python:3", "python:4")),
    lambda folder: (folder.parent / "lock.toml").write_text(
        LOCK.replace("PYTHON_IMAGE =", "BASE_IMAGE =")
    ),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_tag_changes_with_what_is_built(tree: Path, number: int) -> None:
    before = worker_tag(tree), trainer_tag(tree)
    CHANGES[number](tree / "images" / "worker")
    assert worker_tag(tree) != before[0]
    assert trainer_tag(tree) != before[1], "it is built from the worker's image"


def test_a_base_s_tag_stays_when_what_is_built_from_it_changes(tree: Path) -> None:
    before = worker_tag(tree), trainer_tag(tree)
    (tree / "images" / "trainer" / "package" / "code.py").write_text("x = 2\n")
    assert worker_tag(tree) == before[0]
    assert trainer_tag(tree) != before[1]


def test_bytes_do_not_go_from_one_file_to_the_next_unnoticed(tree: Path) -> None:
    folder = tree / "images" / "worker"
    (folder / "a").write_text("12")
    (folder / "b").write_text("3")
    before = worker_tag(tree)
    (folder / "a").write_text("1")
    (folder / "b").write_text("23")
    assert worker_tag(tree) != before


def test_an_image_for_another_platform_has_another_tag(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Docker's image of this name, for the machine that it is on, would be taken for it."""
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    before = worker_tag(tree), trainer_tag(tree)
    own = next(iter(images.built_for().values()))
    assert own in {"linux/amd64", "linux/arm64"}
    other = "linux/amd64" if own == "linux/arm64" else "linux/arm64"
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", other)
    assert not {*before} & {worker_tag(tree), trainer_tag(tree)}
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", own)
    assert before == (worker_tag(tree), trainer_tag(tree))


def test_a_tag_stays_with_what_is_built(tree: Path) -> None:
    before = worker_tag(tree)
    folder = tree / "images" / "worker"
    compiled = folder / "package" / "__pycache__"
    compiled.mkdir()
    (compiled / "code.cpython-313.pyc").write_bytes(b"\0")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    (tree / "images" / "minio" / "Dockerfile").write_text("FROM another\n")
    (tree / images.LOCK).write_text(LOCK.replace("kindest/node:v1", "kindest/node:v2"))
    assert worker_tag(tree) == before
    moved = tree.with_name("another tree")
    tree.rename(moved)
    assert worker_tag(moved) == before


# --- Bringing them ------------------------------------------------------------------------------


def list_unpulled(config: Config) -> list[Image]:
    """List the images to pull, including the bases of images to build."""
    return [image for image in images.list_missing(config) if not image.is_built]


def sorted_names(known: list[Image]) -> list[str]:
    return sorted(image.name for image in known)


def test_what_is_missing_where_there_is_nothing(engine: Engine, tree: Path) -> None:
    """An image to build is not listed, but its base is."""
    assert sorted_names(list_unpulled(config_of(tree))) == [
        "apache/airflow:3",
        "docker.gitea.com/gitea:1.26",
        "fork/minio:1",
        "kindest/node:v1",
        "postgres:17",
        "python:3",
    ]
    assert not engine.changes


def test_what_a_built_image_was_built_from_is_not_missing(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    engine.add_images(*(image.name for key, image in known.items() if key not in ("go", "python")))
    assert list_unpulled(config_of(tree)) == []
    (known["trainer"].folder or tree).joinpath("Dockerfile").write_text("FROM another\n")
    assert list_unpulled(config_of(tree)) == [], "what it is built from is there"
    (known["worker"].folder or tree).joinpath("Dockerfile").write_text("FROM another\n")
    assert sorted_names(list_unpulled(config_of(tree))) == ["python:3"]
    engine.add_images("python:3")
    assert list_unpulled(config_of(tree)) == []


def test_everything_is_brought_in_order(
    engine: Engine, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = images.ensure_images(config_of(tree))
    folders = tree / "images"
    assert engine.changes == [
        ["pull", "--quiet", f"kindest/node@{PINNED}"],
        ["tag", f"kindest/node@{PINNED}", "kindest/node:v1"],
        ["pull", "--quiet", f"postgres@{PINNED}"],
        ["tag", f"postgres@{PINNED}", "postgres:17"],
        ["pull", "--quiet", f"fork/minio@{PINNED}"],
        ["tag", f"fork/minio@{PINNED}", "fork/minio:1"],
        ["pull", "--quiet", "docker.gitea.com/gitea:1.26"],
        ["pull", "--quiet", "python:3"],
        [
            *("build", "--tag", known["pod-identity"].name),
            *("--build-arg", "PYTHON_IMAGE=python:3"),
            str(folders / "pod-identity"),
        ],
        ["pull", "--quiet", "apache/airflow:3"],
        [
            *("build", "--tag", known["worker"].name),
            *("--build-arg", "PYTHON_IMAGE=python:3"),
            str(folders / "worker"),
        ],
        [
            *("build", "--tag", known["trainer"].name),
            *("--build-arg", f"WORKER_IMAGE={known['worker'].name}"),
            str(folders / "trainer"),
        ],
    ]
    wanted = [known[key].name for key in images.list_wanted(known)]
    assert {*wanted, "python:3"} <= engine.names
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["  pulling kindest/node:v1", "  pulled kindest/node:v1: 7 MB, 0 s"]
    trainer = known["trainer"].name
    assert said[-2:] == [f"  building {trainer}", f"  built {trainer}: 7 MB, 0 s"]
    assert len(said) == 2 * (len(wanted) + 1)


# --- What is built where nothing is to be pulled ------------------------------------------------


def test_what_no_registry_gives_is_built_from_source(
    engine: Engine, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifests go on naming what can't be had."""
    engine.change(unanswered=["pull --quiet fork/"])
    known = images.ensure_images(config_of(tree))
    built = images.read_lock(config_of(tree))["minio-source"].name
    assert [
        *("build", "--tag", built, "--build-arg", "GO_IMAGE=golang:1"),
        *("--build-arg", "VERSION=v0", str(tree / "images" / "minio")),
    ] in engine.changes
    said = capsys.readouterr().out
    assert "fork/minio:1 can't be pulled (" in said
    assert f"  building {built}, once: about four minutes" in said
    entry = manifests.kustomize_image(known["minio"], known["minio"].name)
    name, _, tag = built.rpartition(":")
    assert entry == {"name": "fork/minio", "newName": name, "newTag": tag}


def test_what_was_built_from_source_is_used_again(
    engine: Engine, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = images.read_lock(config_of(tree))
    engine.add_images(known["minio-source"].name)
    images.ensure_image(known, known["minio"])
    assert images.choose(known)["minio"].name == known["minio-source"].name
    assert "fork/minio:1" not in sorted_names(list_unpulled(config_of(tree)))
    assert capsys.readouterr().out.endswith(", built from source, is used for fork/minio:1\n")
    engine.add_images("fork/minio:1")
    assert images.choose(known) == known, "what can be had is used"


def test_an_engine_that_is_gone_is_no_reason_to_build(
    engine: Engine,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pull(*_: object) -> None:
        raise MachineError("no Docker answers", "start it")

    monkeypatch.setattr(docker, "pull", pull)
    known = images.read_lock(config_of(tree))
    with pytest.raises(MachineError, match="no Docker answers"):
        images.ensure_image(known, known["minio"])
    assert capsys.readouterr().out == "  pulling fork/minio:1\n"
    assert engine.changes == []


def test_what_is_there_is_neither_pulled_nor_built(
    engine: Engine, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = images.read_lock(config_of(tree))
    pinned = [image.name for image in known.values() if image.digest]
    engine.add_images(*(known[key].name for key in ("node", *images.STORES, *images.AIRFLOW)))
    engine.add_images(*pinned, digests=(OTHER, PINNED))
    assert images.ensure_images(config_of(tree)) == known
    assert not engine.changes
    assert capsys.readouterr().out == ""


def test_a_base_that_is_there_is_built_upon(engine: Engine, tree: Path) -> None:
    engine.add_images("python:3")
    known = images.read_lock(config_of(tree))
    images.ensure_image(known, known["worker"])
    assert [call[0] for call in engine.changes] == ["build"]


def test_a_base_that_is_built_here_is_built_first(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    images.ensure_image(known, known["trainer"])
    made = [call[2] for call in engine.changes]
    assert made == ["python:3", known["worker"].name, known["trainer"].name]


@pytest.mark.parametrize(("digest", "said"), [(PINNED, False), (OTHER, True), (None, True)])
def test_an_image_of_this_machine_is_used_and_said(
    digest: str | None,
    said: bool,
    engine: Engine,
    tree: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine.add_images("postgres:17", digests=(digest,) if digest else ())
    known = images.read_lock(config_of(tree))
    images.ensure_image(known, known["postgresql"])
    assert not engine.changes
    line = "  postgres:17 is this machine's own image, not the lock's sha256:aaaaaaaaaaaa…\n"
    assert capsys.readouterr().out == (line if said else "")


def test_an_image_that_can_not_be_pulled(engine: Engine, tree: Path) -> None:
    engine.change(unanswered=["pull"])
    known = images.read_lock(config_of(tree))
    with pytest.raises(LabError, match="it is tired") as caught:
        images.ensure_image(known, known["postgresql"])
    assert caught.value.fix == "bring it to this machine: docker pull postgres:17"
    assert not engine.names


def test_an_image_that_can_not_be_built(engine: Engine, tree: Path) -> None:
    engine.change(unanswered=["build"])
    known = images.read_lock(config_of(tree))
    with pytest.raises(LabError, match="it is tired") as caught:
        images.ensure_image(known, known["worker"])
    assert f"docker build {known['worker'].folder}" in caught.value.fix


def test_an_engine_that_fails_does_not_mean_that_an_image_is_missing(
    engine: Engine, tree: Path
) -> None:
    engine.change(unanswered=["image inspect"])
    with pytest.raises(LabError, match="it is tired"):
        list_unpulled(config_of(tree))


# --- Images of one's own ------------------------------------------------------------------------


FOLDER = '[images.steps]\nfolder = "images/steps"\n'
FILE = '[images.dbt]\nrequirements = "images/dbt.txt"\n'


@pytest.fixture
def own(tree: Path) -> Path:
    """Return the folder of an image of the project's, which has no Dockerfile yet."""
    folder = tree / "images" / "steps"
    (folder / "churn_steps").mkdir(parents=True)
    (folder / "churn_steps" / "clean.py").write_text("x = 1\n")
    (folder / "requirements.txt").write_text("humanize==4.9.0 --hash=sha256:1\n")
    (folder / ".env").write_text("SECRET=1\n")
    (tree / "images" / "dbt.txt").write_text("dbt-core==1.9\n")
    write_project(tree, FOLDER)
    return folder


def own_tag(tree: Path, name: str = "steps") -> str:
    return images.read_lock(config_of(tree))[name].tag


def test_a_project_s_own_images_are_beside_the_kit_s(tree: Path, own: Path) -> None:
    write_project(tree, FOLDER + FILE)
    known = images.read_lock(config_of(tree))
    steps, worker = known["steps"], known["worker"]
    assert (steps.repository, CONTENT.fullmatch(steps.tag) is None) == ("churn/steps", False)
    assert (steps.is_built, steps.folder, steps.digest) == (True, None, None)
    assert steps.arguments == {"WORKER_IMAGE": worker.name}
    assert images.list_own(known) == ["steps", "dbt"]
    early = [*images.STORES, "airflow", "worker"]
    assert images.list_loaded(known) == [*early, "steps", "dbt", "trainer"]
    assert images.list_wanted(known) == [*images.WANTED, "steps", "dbt"]


def test_the_kit_s_dockerfile_has_the_folder_beside_it(tree: Path, own: Path) -> None:
    write_project(tree, FOLDER + FILE)
    known = images.read_lock(config_of(tree))
    frame = {"Dockerfile", "build-requirements.txt"}
    assert known["steps"].files.keys() == {
        *frame, "steps/churn_steps/clean.py", "steps/requirements.txt"
    }  # fmt: skip
    assert known["dbt"].files.keys() == {*frame, "steps/requirements.txt"}
    assert known["dbt"].files["steps/requirements.txt"] == tree / "images" / "dbt.txt"


def test_a_folder_with_a_dockerfile_is_built_as_it_is(tree: Path, own: Path) -> None:
    (own / "Dockerfile").write_text(
        "ARG WORKER_IMAGE=any PYTHON_IMAGE\nARG NODE\nFROM ${WORKER_IMAGE}\nARG  GO_IMAGE\n"
    )
    steps = images.read_lock(config_of(tree))["steps"]
    assert steps.files.keys() == {"Dockerfile", "churn_steps/clean.py", "requirements.txt"}
    assert steps.arguments.keys() == {"WORKER_IMAGE", "PYTHON_IMAGE", "GO_IMAGE"}
    assert steps.arguments["PYTHON_IMAGE"] == "python:3"


def test_a_dockerfile_from_elsewhere_is_served(tree: Path, own: Path) -> None:
    (own / "Dockerfile").write_text("FROM alpine AS build\nUSER root\nFROM alpine\n")
    assert images.read_lock(config_of(tree))["steps"].arguments == {}


OWN_CHANGES: list[Callable[[Path], object]] = [
    lambda folder: (folder / "churn_steps" / "clean.py").write_text("x = 2\n"),
    lambda folder: (folder / "churn_steps" / "clean.py").rename(folder / "clean.py"),
    lambda folder: (folder / "requirements.txt").unlink(),
    lambda folder: (folder / "Dockerfile").write_text("FROM alpine\n"),
    lambda folder: (folder.parents[1] / images.OWN[0]).write_text("ARG WORKER_IMAGE\n"),
    lambda folder: (folder.parents[1] / images.OWN[1]).write_text("hatchling==2\n"),
    lambda folder: (folder.parent / "worker" / "package" / "code.py").write_text("x = 2\n"),
]


@pytest.mark.parametrize("number", range(len(OWN_CHANGES)))
def test_an_own_image_s_tag_changes_with_what_it_is_built_from(
    tree: Path, own: Path, number: int
) -> None:
    before = own_tag(tree)
    OWN_CHANGES[number](own)
    assert own_tag(tree) != before


def test_an_own_image_s_tag_stays_with_what_it_is_built_from(tree: Path, own: Path) -> None:
    before = own_tag(tree)
    (own / ".env").write_text("SECRET=2\n")
    (own / "__pycache__").mkdir()
    (own / "__pycache__" / "x.pyc").write_bytes(b"x")
    (tree / "images" / "trainer" / "package" / "code.py").write_text("x = 2\n")
    assert own_tag(tree) == before
    moved = tree.with_name("another tree")
    tree.rename(moved)
    assert own_tag(moved) == before


@pytest.mark.parametrize("user", ["root", "0", "0:0", "root:root"])
def test_an_image_whose_user_is_root_is_refused(tree: Path, own: Path, user: str) -> None:
    (own / "Dockerfile").write_text(f"FROM a AS b\nUSER 7\nFROM c\nUSER 9\n user {user}\n")
    with pytest.raises(ProjectError, match="is root, and a step is not") as refused:
        images.read_lock(config_of(tree))
    assert "\n" not in refused.value.what


def test_a_folder_without_a_file_is_refused(tree: Path, own: Path) -> None:
    (tree / "images" / "empty").mkdir()
    write_project(tree, '[images.empty]\nfolder = "images/empty"\n')
    with pytest.raises(ProjectError, match="the folder of the image empty is empty"):
        images.read_lock(config_of(tree))


def test_no_own_image_has_the_name_of_one_of_the_kit_s(tree: Path, own: Path) -> None:
    assert set(tomllib.loads((KIT / images.LOCK).read_text("utf-8"))) == project.IMAGES
    templates = {path.name for path in (KIT / "manifests" / "base" / "templates").iterdir()}
    assert templates == project.TEMPLATES
    for name in ("worker", "python", "training"):
        write_project(tree, FOLDER.replace("images.steps", f"images.{name}"))
        with pytest.raises(
            ProjectError, match=rf"\[images.{name}\] has the name of one of the kit"
        ):
            images.read_lock(config_of(tree))


def test_an_own_image_is_built_after_its_base_from_its_files_alone(
    engine: Engine, tree: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "churn_steps" / "run.sh").write_text("echo\n")
    (own / "churn_steps" / "run.sh").chmod(0o700)
    (own / "requirements.txt").chmod(0o600)
    engine.add_images("python:3")
    known = images.read_lock(config_of(tree))
    images.ensure_image(known, known["steps"])
    assert [call[2] for call in engine.changes] == [known["worker"].name, known["steps"].name]
    assert engine.state["built"] == {
        "Dockerfile": "0o644",
        "build-requirements.txt": "0o644",
        "steps/churn_steps/clean.py": "0o644",
        "steps/churn_steps/run.sh": "0o755",
        "steps/requirements.txt": "0o644",
    }
    assert "has no hashes" not in capsys.readouterr().out
    assert not Path(engine.changes[-1][-1]).exists(), "it is a temporary folder"


def test_requirements_without_hashes_are_taken_and_said(
    engine: Engine, tree: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tree, FILE)
    engine.add_images("python:3")
    known = images.read_lock(config_of(tree))
    images.ensure_image(known, known["dbt"])
    said = capsys.readouterr().out.splitlines()
    assert "  image dbt: dbt.txt has no hashes: any file of that version is installed" in said


def test_an_own_image_that_can_not_be_built_is_named_as_lab_toml_does(
    engine: Engine, tree: Path, own: Path
) -> None:
    known = images.read_lock(config_of(tree))
    engine.add_images(known["worker"].name)
    engine.change(unanswered=["build"])
    with pytest.raises(LabError, match="it is tired") as caught:
        images.ensure_image(known, known["steps"])
    assert caught.value.fix.endswith("it is [images.steps] of lab.toml")


def test_an_own_image_that_is_missing_is_listed_to_be_built(
    engine: Engine, tree: Path, own: Path
) -> None:
    known = images.read_lock(config_of(tree))
    engine.add_images(*(image.name for image in known.values() if image.key != "steps"))
    assert images.list_missing(config_of(tree)) == [known["steps"]]
    engine.add_images(known["steps"].name)
    assert images.list_missing(config_of(tree)) == []


def test_archives_of_own_images_are_kept_for_each_project_and_each_name(
    engine: Engine, tree: Path, own: Path
) -> None:
    """Projects share the folder, and one image's name may be the beginning of another's."""
    (tree / "images" / "steps-big").mkdir()
    (tree / "images" / "steps-big" / "x.py").touch()
    write_project(tree, FOLDER + FOLDER.replace("steps", "steps-big"))
    known = images.read_lock(config_of(tree))
    wanted = [known["steps-big"], known["steps"]]
    wanted.append(replace(known["steps"], name=f"other/steps:{known['steps'].tag}"))
    engine.add_images(*(image.name for image in wanted))
    made = {images.ensure_archive(known, image).name for image in wanted}
    assert {name.rpartition("-")[0] for name in made} == {
        "churn.steps", "churn.steps-big", "other.steps"
    }  # fmt: skip
    assert made == set(list_archives())


# --- Archives -----------------------------------------------------------------------------------


def list_archives() -> list[str]:
    return sorted(path.name for path in images.ensure_archive_folder().iterdir())


def test_an_archive_is_made_once(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    gitea = known["gitea"]
    engine.add_images(gitea.name)
    path = images.ensure_archive(known, gitea)
    assert path.parent == images.ensure_archive_folder()
    assert re.fullmatch("gitea-[0-9a-f]{16}.tar", path.name)
    assert path.read_text() == "sha256:" + "1" * 64
    assert images.ensure_archive(known, gitea) == path
    assert [call[0] for call in engine.changes] == ["save"]
    assert images.ensure_archive_folder().stat().st_mode & 0o777 == 0o700


def test_another_images_archive_replaces_the_older_one(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    engine.add_images(known["gitea"].name, known["airflow"].name)
    older = images.ensure_archive(known, known["gitea"])
    other = images.ensure_archive(known, known["airflow"])
    engine.add_images(known["gitea"].name, id_="2" * 64)
    newer = images.ensure_archive(known, known["gitea"])
    assert newer.read_text() == "sha256:" + "2" * 64
    assert newer != older
    assert list_archives() == sorted([other.name, newer.name])


def test_the_same_content_under_another_name_is_another_archive(engine: Engine, tree: Path) -> None:
    """An archive holds the image's name, and loading it must create that name in the node."""
    known = images.read_lock(config_of(tree))
    worker = known["worker"]
    renamed = replace(worker, name=f"{worker.repository}:another")
    engine.add_images(worker.name, renamed.name)
    assert images.ensure_archive(known, worker) != images.ensure_archive(known, renamed)


def test_what_a_base_has_is_in_no_other_archive(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    worker, trainer = known["worker"], known["trainer"]
    base = ["blobs/sha256/1", "blobs/sha256/2"]
    engine.add_images(worker.name, members=[*base, "index.json"])
    engine.add_images(trainer.name, members=[*base, "blobs/sha256/3", "index.json"])
    with tarfile.open(images.ensure_archive(known, trainer)) as kept:
        assert kept.getnames() == ["blobs/sha256/3", "index.json"]
        assert {file.read() for name in kept.getnames() if (file := kept.extractfile(name))} == {
            b"blobs/sha256/3",
            b"index.json",
        }
    with tarfile.open(images.archive_path(worker)) as whole:
        assert whole.getnames() == [*base, "index.json"]
    assert len(list_archives()) == 2


def test_half_an_archive_is_never_seen(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    gitea = known["gitea"]
    engine.add_images(gitea.name)
    engine.change(unanswered=["save"])
    with pytest.raises(LabError, match="it is tired"):
        images.ensure_archive(known, gitea)
    assert list_archives() == []
    engine.change(unanswered=[])
    images.ensure_archive(known, gitea)
    assert engine.state["seen"] == [[]]


def test_what_a_killed_save_left_goes_with_the_next_one(engine: Engine, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    gitea = known["gitea"]
    engine.add_images(gitea.name)
    left = images.ensure_archive_folder() / f"gitea-{'0' * 16}.tar.part-0123456789abcdef"
    left.write_text("half")
    os.utime(left, (1, 1))
    assert list_archives() == [left.name]
    assert [images.ensure_archive(known, gitea).name] == list_archives()


# --- The node -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("postgres:17", "docker.io/library/postgres:17"),
        ("apache/airflow:3", "docker.io/apache/airflow:3"),
        ("mlops-lab/worker:0123", "docker.io/mlops-lab/worker:0123"),
        ("docker.gitea.com/gitea:1.26", "docker.gitea.com/gitea:1.26"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("localhost:5000/a/x:1", "localhost:5000/a/x:1"),
    ],
)
def test_a_name_as_containerd_writes_it(name: str, reference: str) -> None:
    assert node.containerd_name(Image("x", name, None, None, {})) == reference


def test_the_node_that_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    barrier = tmp_path / "barrier.conf"
    described: Any = yaml.safe_load(yaml.safe_dump(node.cluster_config(barrier)))
    assert described["networking"] == {
        "apiServerAddress": "127.0.0.1",
        "serviceSubnet": node.SERVICES,
    }
    (only,) = described["nodes"]
    assert only["role"] == "control-plane"
    assert only["extraMounts"] == [
        {
            "hostPath": str(images.ensure_archive_folder()),
            "containerPath": node.ARCHIVES,
            "readOnly": True,
        },
        {"hostPath": str(barrier), "containerPath": node.BARRIER_PLACE, "readOnly": True},
    ]
    kubelet, cluster = map(yaml.safe_load, only["kubeadmConfigPatches"])
    assert kubelet["kind"] == "KubeletConfiguration"
    assert kubelet["crashLoopBackOff"] == {"maxContainerRestartPeriod": "5s"}
    assert cluster["kind"] == "ClusterConfiguration"
    for component in ("controllerManager", "scheduler"):
        assert {"name": "leader-elect", "value": "false"} in cluster[component]["extraArgs"]


def test_each_home_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    one, two = (node.cluster_name(Config(home=tmp_path / name)) for name in ("one", "two"))
    assert one != two
    assert one == node.cluster_name(Config(home=tmp_path / "one"))
    assert re.fullmatch(r"mlops-lab-[0-9a-f]{8}", one)


@pytest.fixture
def image(tree: Path) -> Image:
    return images.read_lock(config_of(tree))["node"]


@pytest.fixture
def strange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables that a person's shell may have and that kind must not see."""
    monkeypatch.setenv("KUBECONFIG", "their-own")
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "podman")


def test_a_node_is_made(engine: Engine, config: Config, image: Image, strange: None) -> None:
    assert node.read_state(config) is None
    node.ensure_running(config, image)
    assert node.read_state(config) == "running"
    (call,) = engine.changes
    assert call[:3] == ["kind", "create", "cluster"]
    assert call[call.index("--image") + 1] == image.name
    key = node.kubeconfig_path(config)
    assert (key.read_text(), key.stat().st_mode & 0o777) == (node.cluster_name(config), 0o600)
    assert [path.name for path in config.secrets.iterdir()] == ["kubeconfig"]
    (env,) = engine.state["environments"]
    assert "PATH" in env
    assert not [name for name in env if name.startswith(("KIND_", "KUBE"))]


def test_a_node_that_runs_is_left_alone(engine: Engine, config: Config, image: Image) -> None:
    node.ensure_running(config, image)
    before = engine.changes
    node.delete_incomplete(config)
    node.ensure_running(config, image)
    assert engine.changes == before


def test_a_node_that_was_stopped_is_started(engine: Engine, config: Config, image: Image) -> None:
    assert not node.stop(config)
    node.ensure_running(config, image)
    assert node.stop(config)
    assert not node.stop(config)
    node.delete_incomplete(config)
    node.ensure_running(config, image)
    assert engine.changes[-1] == ["start", node.container_name(config)]
    assert node.read_state(config) == "running"


def test_half_a_cluster_is_made_anew(engine: Engine, config: Config, image: Image) -> None:
    engine.change(unanswered=["kind create"])
    with pytest.raises(LabError, match="failed to create cluster"):
        node.ensure_running(config, image)
    assert node.read_state(config) == "running"
    assert not node.kubeconfig_path(config).exists()
    engine.change(unanswered=[])
    node.delete_incomplete(config)
    assert node.read_state(config) is None
    node.ensure_running(config, image)
    assert [call[1] for call in engine.changes] == ["create", "delete", "create"]
    assert node.kubeconfig_path(config).exists()


def test_a_cluster_is_deleted_with_its_key(engine: Engine, config: Config, image: Image) -> None:
    node.ensure_running(config, image)
    node.delete(config)
    assert node.read_state(config) is None
    assert not node.kubeconfig_path(config).exists()


def test_an_engine_that_fails_does_not_mean_that_there_is_no_node(
    engine: Engine, config: Config, image: Image
) -> None:
    engine.change(unanswered=["container inspect"])
    for look in (
        node.read_state,
        node.delete_incomplete,
        lambda config: node.ensure_running(config, image),
        node.stop,
    ):
        with pytest.raises(LabError, match="it is tired"):
            look(config)
    assert not engine.changes


def test_the_node_gets_the_images_that_it_lacks(engine: Engine, config: Config, tree: Path) -> None:
    known = images.read_lock(config_of(tree))
    wanted = [known[key] for key in ("postgresql", "gitea", "airflow")]
    engine.add_images(*(image.name for image in wanted))
    engine.change(loaded=["docker.io/library/postgres:17", "docker.io/library/postgres@sha256:1"])
    for image in wanted:
        archive = images.ensure_archive(known, image)
        node.load_image(config, image, archive, node.list_images(config))
    imports = [call[-1] for call in engine.changes if "import" in call]
    kept = [images.archive_path(known[key]).name for key in ("gitea", "airflow")]
    assert imports == [f"{node.ARCHIVES}/{name}" for name in kept]


def test_an_image_for_another_platform_is_imported_as_such(
    engine: Engine, config: Config, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """containerd finds no image for its own platform in the archive, and would refuse it."""
    known = images.read_lock(config_of(tree))
    image = known["gitea"]
    engine.add_images(image.name)
    archive = images.ensure_archive(known, image)
    for chosen in ("", "linux/amd64"):
        monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", chosen)
        node.load_image(config, image, archive, ())
    first, second = (call for call in engine.changes if "import" in call)
    assert "--platform" not in first
    assert second[second.index("--platform") + 1] == "linux/arm64", "the image says what it is"
