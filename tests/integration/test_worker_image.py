"""The worker image as the step's pod runs it, against the lab's real S3 server and git server.

A container here is what manifests/base/templates/step describes: an unprivileged user, a
read-only root file system, no capabilities; it writes to /shared and to /tmp alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.cluster import docker
from lab.config import KIT
from lab.wait import NotYet, wait_until
from tests.support.containers import (
    LOOPBACK,
    USER,
    Worker,
    find_files,
    inspect_container,
    read_logs,
    wait_for_end,
)
from tests.support.needs import ensure_image
from tests.support.steps import HASTY, STEPS, reproduce_dataset
from tests.support.stores import CREDENTIALS, DEADLINE, STOPPER, Done, complete

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

    from tests.support.stores import Project

pytestmark = pytest.mark.kind

TEMPLATE = Path("manifests", "base", "templates", "step", "template.yaml")
KILLED = 137


# --- The image and its containers ---------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> str:
    """Return the locked image, built from this checkout where its sources are here."""
    return ensure_image("worker")


@pytest.fixture(scope="module")
def volume(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder that containers may write to; they also remove what they have left there."""
    folder = tmp_path_factory.mktemp("volume")
    folder.chmod(0o777)
    yield folder
    find = ["/shared", "-mindepth", "2", "-delete"]
    Worker(image, folder).run_to_end(*find, entrypoint="find")


@dataclass(frozen=True)
class Pods:
    """One run of the pipeline, with each step in a container of its own."""

    worker: Worker
    project: Project
    run_id: str

    def environment(self, **changes: str | None) -> dict[str, str]:
        """Return what the step's ConfigMap and Secrets would hold; None leaves a name out."""
        local = ("PATH", "HOME")
        given = {k: v for k, v in self.project.environment(self.run_id).items() if k not in local}
        both = {**given, "SHARED_DIR": "/shared", **changes}
        return {k: v.replace("127.0.0.1", LOOPBACK) for k, v in both.items() if v is not None}

    def run_step(self, *argv: str, entrypoint: str | None = None, **changes: str | None) -> Done:
        """Run a step to its end. No step's output may ever hold a secret."""
        env = self.environment(**changes)
        options = {"entrypoint": entrypoint} if entrypoint else {}
        done = self.worker.run_to_end(*map(str, complete(*argv)), env=env, **options)
        own = [value for name, value in changes.items() if value and name in CREDENTIALS]
        assert not self.project.stores.find_leaks(done.output, *own)
        return done

    def run_steps(self, *steps: str) -> str:
        """Run the steps, all of which must succeed, and return what they printed."""
        done = [self.run_step(step) for step in steps]
        assert [d.code for d in done] == [0] * len(steps), done
        return "".join(d.output for d in done)

    def kill_step(self, step: str, place: str) -> None:
        """Kill the step's container when it comes to that function."""
        argv = ("-c", STOPPER, place, "hold", *map(str, complete(step)))
        options: dict[str, Any] = {"entrypoint": "python", "stdin_open": True}
        with self.worker.container(*argv, env=self.environment(), **options) as container:
            wait_until(lambda: expect_held(container), what=place, timeout=DEADLINE)
            container.get_wrapped_container().kill("SIGKILL")
            done = wait_for_end(container)
        assert done.code == KILLED
        assert not self.project.stores.find_leaks(done.output)


def expect_held(container: DockerContainer) -> None:
    """Raise NotYet until the step waits."""
    container.reload()
    if "held\n" not in read_logs(container):
        assert container.status in {"created", "running"}, read_logs(container)
        raise NotYet(container.status)


@pytest.fixture
def pods(image: str, volume: Path, project: Project) -> Pods:
    """Return a run whose volume is its project's folder."""
    shared = volume / project.name.replace("/", "-")
    shared.mkdir()
    shared.chmod(0o777)
    return Pods(Worker(image, shared), replace(project, shared=shared), project.run().id)


@pytest.fixture(scope="module")
def idle(image: str, volume: Path) -> Iterator[DockerContainer]:
    """Start a container in which one can look around."""
    with Worker(image, volume).container("600", entrypoint="sleep") as container:
        yield container


@pytest.fixture
def run(idle: DockerContainer) -> Callable[..., Done]:
    """Return a function that runs a command in that container."""

    def run_inside(*argv: str) -> Done:
        done = idle.exec(list(argv))
        assert done.exit_code is not None
        return Done(done.exit_code, done.output.decode())

    return run_inside


# --- A run --------------------------------------------------------------------------------------


def test_the_containers_here_are_what_the_template_describes(idle: DockerContainer) -> None:
    spec = yaml.safe_load((KIT / TEMPLATE).read_text("utf-8"))["template"]["spec"]
    (container,) = spec["containers"]
    security, pod = container["securityContext"], spec["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["runAsGroup"]) == (True, USER, USER)
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/shared", "/tmp"}
    assert "command" not in container
    host = inspect_container(idle.get_container_id())["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert host["Memory"] == 512 * 2**20
    assert container["resources"]["limits"]["memory"] == "512Mi"


def test_a_run_makes_one_commit_that_can_be_reproduced(pods: Pods, tmp_path: Path) -> None:
    pods.run_steps(*STEPS)
    first, second = pods.project.prove_commits()
    assert pods.project.list_run_ids() == [pods.run_id]
    old = reproduce_dataset(pods.project, first.hash, tmp_path / "old")
    new = reproduce_dataset(pods.project, second.hash, tmp_path / "new")
    assert new.startswith(old) and new[len(old) :].startswith(b"301,")
    assert new == pods.project.stores.read_object(second.md5)
    assert pods.project.list_leftovers() == []


def test_a_second_push_changes_nothing(pods: Pods) -> None:
    pods.run_steps(*STEPS)
    tip = pods.project.tip()
    assert tip in pods.run_steps("publish")
    assert pods.project.tip() == tip
    assert len(pods.project.prove_commits()) == 2


def test_a_run_whose_containers_are_killed_makes_one_commit(pods: Pods) -> None:
    """Their locks do not keep out the containers that come after them."""
    for step, *places in (
        ("pull", "remote:write_blocks"),
        ("modify", "workspace:Workspace.seal"),
        ("publish", "remote:Remote.send", "repository:push", "workspace:Workspace.remove"),
    ):
        for place in places:
            pods.kill_step(step, place)
        pods.run_steps(step)
    assert pods.project.list_run_ids() == [pods.run_id]
    assert len(pods.project.prove_commits()) == 2
    assert pods.project.list_leftovers() == []


# --- Failures -----------------------------------------------------------------------------------


def test_a_wrong_git_password_is_final_and_never_shown(pods: Pods) -> None:
    done = pods.run_step("pull", GIT_SYNC_PASSWORD="wrong-password-of-a-person")
    assert done.code == 65, done
    assert done.output.startswith("error: the git server refused the step's credentials")


def test_a_wrong_s3_key_is_final_and_never_shown(pods: Pods) -> None:
    done = pods.run_step("pull", AWS_SECRET_ACCESS_KEY="wrong-secret-key-of-a-person")
    assert done.code == 65, done
    assert done.output.startswith("error: the S3 server refused the step's key")


@pytest.mark.parametrize("name", ["RUN_ID", "GIT_URL", "S3_BUCKET", "GIT_SYNC_PASSWORD"])
def test_a_missing_variable_is_final(pods: Pods, name: str) -> None:
    done = pods.run_step("pull", **{name: None})
    assert done == Done(65, f"error: the step's environment lacks {name}\n")
    assert list(pods.project.shared.iterdir()) == []


def test_an_s3_server_that_can_not_be_reached_may_come_back(pods: Pods) -> None:
    unreachable = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    pods.run_steps("pull", "modify")
    done = pods.run_step(
        "-c", HASTY, *map(str, complete("publish")), entrypoint="python", **unreachable
    )
    assert done.code == 75, done
    assert done.output.startswith("error: no answer from S3 for s3:")
    assert len(pods.project.list_commits()) == 1
    pods.run_steps("publish")
    assert pods.project.list_run_ids() == [pods.run_id]


def test_a_volume_that_can_not_be_written_may_come_back(pods: Pods) -> None:
    """As when its owner is not set yet."""
    done = pods.run_step("pull", SHARED_DIR="/var/shared")
    assert done.code == 75, done
    assert done.output.startswith("error: ") and "/var/shared" in done.output


# --- The image ----------------------------------------------------------------------------------


def test_it_runs_the_steps_as_a_user_without_rights(image: str, run: Callable[..., Done]) -> None:
    config = inspect_container(image)["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["dataset-steps"]
    assert not config["Cmd"]
    assert run("id", "-u").output.strip() == str(USER)
    assert run("grep", "CapEff", "/proc/self/status").output.split()[1].strip("0") == ""
    for place in ("/", "/opt/worker", "/usr/local", "/var"):
        assert run("touch", f"{place}/file").code == 1, place
    for place in ("/shared", "/tmp"):
        assert run("touch", f"{place}/file").code == 0, place
    assert run("rm", "/shared/file").code == 0


def test_the_user_may_write_nowhere_even_without_a_read_only_root(image: str) -> None:
    found = find_files(image, USER, "-writable", "-not", "-type", "l")
    assert found <= {"/tmp", "/var/tmp", "/run/lock"}


def test_dvc_and_git_are_there(run: Callable[..., Done]) -> None:
    locked = (KIT / "images" / "worker" / "requirements.txt").read_text("utf-8")
    version = re.search(r"^dvc==([\d.]+)", locked, re.MULTILINE)
    assert version
    assert run("dvc", "--version") == Done(0, f"{version[1]}\n")
    git = run("git", "--version")
    assert git.code == 0 and git.output.startswith("git version 2.")
    assert run("dataset-steps", "--help").code == 0
    assert run("python", "-c", "import dvc_s3, boto3, obstore, tenacity").code == 0


def test_nothing_is_there_that_a_build_leaves(image: str, run: Callable[..., Done]) -> None:
    names = (".git", ".gitconfig", ".netrc", ".aws", ".docker", "build-requirements.txt")
    paths = ("*/.cache/pip", "/src", "/wheels", "/opt/build", "/var/lib/apt/lists/*")
    expressions = [f"-name '{name}'" for name in names] + [f"-path '{path}'" for path in paths]
    assert find_files(image, 0, " -o ".join(expressions)) == set()
    assert run("python", "-m", "pip", "--version").code == 1


def test_no_secret_is_in_what_docker_knows_of_it(image: str, pods: Pods) -> None:
    config = inspect_container(image)["Config"]
    history = docker.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    shown = json.dumps(config) + history
    assert not pods.project.stores.find_leaks(shown)
    assert not re.search(r"://[^/\s\"]*@", shown)  # an address that holds a password
    assert not re.search(r"(?i)password|secret|token|credential", json.dumps(config))
    names = {entry.partition("=")[0] for entry in config["Env"]}
    assert {"PATH", "HOME", "PYTHONUNBUFFERED"} <= names
    assert not [name for name in names if re.search(r"(?i)proxy|index|aws|git_", name)]
