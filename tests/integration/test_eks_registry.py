"""The registry: ECR as moto plays it, and Docker's part against a real registry, Gitea's."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import requests

from eks import registry
from eks.environment import CLUSTER_TAG, TAG
from eks.image_check import check_images
from eks.registry import Login
from eks.site import Site, tag_list
from lab import shell
from lab.cluster import docker, forward, images
from lab.cluster.images import Image
from lab.errors import CloudBusy, LabError, MachineError, NameTaken, PromotionError
from lab.wait import wait_until
from tests.support import cloud as clouds
from tests.support.attested import id_on_kind, tag_of, with_images
from tests.support.cloud import Cloud, kill_at_each_call
from tests.support.gitea import PORT, settings
from tests.support.needs import need_image
from tests.support.pushes import Docker

WORKER, TRAINER = "mlops-lab-staging/worker", "mlops-lab-staging/trainer"
SERVER = f"{clouds.ACCOUNT}.dkr.ecr.{clouds.REGION}.amazonaws.com"


def describe_repositories(cloud: Cloud) -> dict[str, Any]:
    """Return each repository's settings, tags and policy, and the tags of its images."""
    ecr = cloud.client("ecr")
    found = {}
    for one in ecr.describe_repositories()["repositories"]:
        name = one["repositoryName"]
        try:
            text = ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"]
        except ecr.exceptions.LifecyclePolicyNotFoundException:
            text = "null"
        details = ecr.describe_images(repositoryName=name)["imageDetails"]
        found[name] = (
            one["imageTagMutability"],
            one["imageScanningConfiguration"]["scanOnPush"],
            one["encryptionConfiguration"]["encryptionType"],
            ecr.list_tags_for_resource(resourceArn=one["repositoryArn"])["tags"],
            json.loads(text),
            sorted(tag for image in details for tag in image.get("imageTags", [])),
        )
    return found


# --- ECR ----------------------------------------------------------------------------------------


def test_what_is_made(cloud: Cloud, site: Site, docker_here: Docker) -> None:
    registry.make(site)
    known = images.read_lock(site.config)
    tags = tag_list(site.environment)
    assert describe_repositories(cloud) == {
        name: ("IMMUTABLE", True, "AES256", tags, registry.TIDY, [tag_of(known[key])])
        for key, name in (("worker", WORKER), ("trainer", TRAINER))
    }
    assert docker_here.pushed == [
        f"{SERVER}/{WORKER}:{tag_of(known['worker'])}",
        f"{SERVER}/{TRAINER}:{tag_of(known['trainer'])}",
    ]


def test_images_are_named_by_the_registrys_digests(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    assert registry.list_references(site) == {}
    registry.make(site)
    found = registry.list_references(site)
    ecr = cloud.client("ecr")
    for key, name in (("worker", WORKER), ("trainer", TRAINER)):
        (held,) = ecr.describe_images(repositoryName=name)["imageDetails"]
        assert found[key] == f"{SERVER}/{name}@{held['imageDigest']}"
    site.ledger.path.unlink()
    assert registry.list_references(site) == found


def test_what_the_registry_has_is_not_sent_again(
    cloud: Cloud, site: Site, docker_here: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.make(site)
    docker_here.pushed.clear()
    asked: list[str] = []
    monkeypatch.setattr(registry, "get_login", lambda _: asked.append("login"))
    registry.make(site)
    assert not docker_here.pushed + asked


def test_changed_code_is_sent_beside_the_old(
    cloud: Cloud, site: Site, docker_here: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.make(site)
    before = registry.list_references(site)
    known = images.read_lock(site.config)
    newer = {**known, "worker": replace(known["worker"], name="mlops-lab/worker:newer")}
    monkeypatch.setattr(images, "read_lock", lambda _: newer)
    with_images(site.config, site.config.attestation or Path())  # all is tested again
    assert set(registry.list_references(site)) == {"trainer"}
    registry.make(site)
    after = registry.list_references(site)
    assert after["worker"] != before["worker"]
    assert after["trainer"] == before["trainer"]
    assert describe_repositories(cloud)[WORKER][-1] == sorted(
        map(tag_of, (known["worker"], newer["worker"]))
    )


def test_another_build_of_the_same_code_is_sent_beside_the_old(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    """Its tag says which build it is: what kind ran is what the cluster runs."""
    registry.make(site)
    before = registry.list_references(site)
    worker = images.read_lock(site.config)["worker"]
    path = site.config.attestation or Path()
    path.write_text(path.read_text().replace(id_on_kind(worker.name), f"sha256:{'b' * 64}"))
    registry.make(site)
    after = registry.list_references(site)
    assert (after["worker"] != before["worker"], after["trainer"]) == (True, before["trainer"])
    assert f"{SERVER}/{WORKER}:{worker.tag}-{'b' * 12}" in docker_here.pushed


def test_an_image_that_kind_did_not_run_is_refused(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    """A build anew of the same files may have other bytes."""
    worker = images.read_lock(site.config)["worker"]
    docker_here.lacks = {id_on_kind(worker.name)}
    docker_here.others = {worker.name: f"sha256:{'b' * 64}"}
    for refused in (check_images, registry.make):
        with pytest.raises(PromotionError) as error:
            refused(site)
        assert f"{worker.name}: neither Docker nor the registry has" in error.value.what
        assert "untested_images = true" in error.value.fix
    assert docker_here.pushed == []


def test_an_image_that_the_registry_has_is_not_asked_of_docker(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    registry.make(site)
    docker_here.lacks = {id_on_kind(image.name) for image in images.read_lock(site.config).values()}
    assert check_images(site) == []
    registry.make(site)
    assert len(registry.list_references(site)) == 2


def test_an_environment_may_take_other_builds_and_is_told(
    cloud: Cloud, docker_here: Docker
) -> None:
    site = cloud.site(untested_images=True)
    worker = images.read_lock(site.config)["worker"]
    docker_here.lacks = {id_on_kind(worker.name)}
    docker_here.others = {worker.name: f"sha256:{'b' * 64}"}
    (line,) = check_images(site)
    assert worker.name in line
    registry.make(site)
    assert f"{SERVER}/{WORKER}:{tag_of(worker, docker_here.others[worker.name])}" in (
        docker_here.pushed
    )
    assert len(registry.list_references(site)) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image | {"digests": []}, "kind ran another one than the lock's"),
        (lambda image: image | {"name": "postgres:16"}, "it is not among what kind ran"),
    ],
)
def test_a_public_image_must_be_the_one_that_kind_ran(
    cloud: Cloud, site: Site, docker_here: Docker, change: Any, said: str
) -> None:
    path = site.config.attestation or Path()
    told = json.loads(path.read_text())
    listed = told["predicate"]["images"]
    told["predicate"]["images"] = [
        change(one) if one["name"].startswith("postgres:") else one for one in listed
    ]
    path.write_text(json.dumps(told))
    with pytest.raises(PromotionError, match=said):
        check_images(site)
    assert check_images(cloud.site(options=("rds",))) == [], "no database is brought"


def test_airflow_of_a_machine_s_own_is_no_image_that_others_have(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    path = site.config.attestation or Path()
    told = json.loads(path.read_text())
    for one in told["predicate"]["images"]:
        if one["name"].startswith("apache/airflow:"):
            one["digests"] = []
    path.write_text(json.dumps(told))
    with pytest.raises(PromotionError, match="of that machine's own, which no registry has"):
        check_images(site)


def test_what_somebody_changed_is_put_right(cloud: Cloud, site: Site, docker_here: Docker) -> None:
    registry.make(site)
    before = describe_repositories(cloud)
    ecr = cloud.client("ecr")
    ecr.put_image_tag_mutability(repositoryName=WORKER, imageTagMutability="MUTABLE")
    ecr.put_image_scanning_configuration(
        repositoryName=WORKER, imageScanningConfiguration={"scanOnPush": False}
    )
    ecr.delete_lifecycle_policy(repositoryName=WORKER)
    registry.make(site)
    assert describe_repositories(cloud) == before


def test_a_push_that_failed_leaves_no_login_and_is_done_again(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    docker_here.fails = True
    with pytest.raises(LabError, match="the network went away"):
        registry.make(site)
    assert not (site.folder / "docker").exists()
    docker_here.fails = False
    registry.make(site)
    assert len(registry.list_references(site)) == 2


def test_a_registry_that_lost_what_was_sent(
    cloud: Cloud, site: Site, docker_here: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "push_image", lambda *_: "sha256:0")
    with pytest.raises(CloudBusy, match="trainer, worker"):
        registry.make(site)


def test_an_image_for_other_machines(cloud: Cloud, site: Site, docker_here: Docker) -> None:
    docker_here.architecture = "arm64"
    for refused in (check_images, registry.make):
        with pytest.raises(MachineError, match="is for linux/arm64") as caught:
            refused(site)
        assert "DOCKER_DEFAULT_PLATFORM=linux/amd64" in caught.value.fix
    assert not docker_here.pushed


def test_a_name_that_ecr_would_refuse(site: Site) -> None:
    odd = replace(site.environment, cluster="My_Lab--of__2-")
    assert registry.repository_name(odd, "worker") == "my-lab-of-2/worker"


def test_the_login_is_ecrs(cloud: Cloud, site: Site) -> None:
    found = registry.get_login(site)
    assert (found.server, found.user) == (SERVER, "AWS")
    assert found.password not in repr(found)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {TAG: "staging"},
        {TAG: "staging", CLUSTER_TAG: "another"},
        {TAG: "production", CLUSTER_TAG: "mlops-lab-staging"},
    ],
)
def test_somebody_elses_repository(
    cloud: Cloud, site: Site, docker_here: Docker, tags: dict[str, str]
) -> None:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    cloud.client("ecr").create_repository(repositoryName=TRAINER, tags=listed)
    with pytest.raises(NameTaken, match=f"repository {TRAINER}"):
        registry.make(site)
    assert not docker_here.pushed
    registry.remove(site)
    assert list(describe_repositories(cloud)) == [TRAINER]
    assert site.ledger.entries() == []


def test_all_goes_with_the_images_and_again(cloud: Cloud, site: Site, docker_here: Docker) -> None:
    registry.make(site)
    site.ledger.path.unlink()
    registry.remove(site)
    assert describe_repositories(cloud) == {}
    registry.remove(site)


@pytest.mark.sweep
def test_killed_at_any_call_it_is_completed_and_removed(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    registry.make(site)
    whole = describe_repositories(cloud)
    deaths = 0
    for number, event in kill_at_each_call(cloud, registry.make):
        after = cloud.site()
        recorded = {entry.name for entry in after.ledger.entries()}
        assert set(describe_repositories(cloud)) <= recorded, f"unrecorded after {event} {number}"
        registry.make(after)
        assert describe_repositories(cloud) == whole
        registry.remove(after)
        assert describe_repositories(cloud) == {}
        assert after.ledger.entries() == []
        deaths += 1
    assert deaths == 2 * (6 if cloud.every else 3)


@pytest.mark.sweep
def test_killed_at_any_call_a_removal_is_ended(
    cloud: Cloud, site: Site, docker_here: Docker
) -> None:
    for _ in kill_at_each_call(cloud, registry.remove, lambda: registry.make(cloud.site())):
        registry.remove(cloud.site())
        assert describe_repositories(cloud) == {}
        assert cloud.site().ledger.entries() == []


# --- Docker and a real registry -----------------------------------------------------------------


@dataclass(frozen=True)
class Real:
    """Gitea's registry, and its one user."""

    server: str
    login: Login

    def read_digest(self, repository: str, tag: str) -> str | None:
        """Return the digest that the registry reports; None when it has no such image."""
        url = f"http://{self.server}/v2/{repository}/manifests/{tag}"
        token = requests.get(
            f"http://{self.server}/v2/token",
            auth=(self.login.user, self.login.password),
            timeout=10,
        ).json()["token"]
        kinds = [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ]
        headers = {"Authorization": f"Bearer {token}", "Accept": ",".join(kinds)}
        said = requests.head(url, headers=headers, timeout=10)
        return said.headers.get("Docker-Content-Digest") if said.ok else None


def find_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    """Start a fresh Gitea whose registry is open to one user; it must know its own address."""
    image = need_image("gitea")
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True  # the block below ends the container
    server = f"127.0.0.1:{find_free_port()}"
    more = {
        "packages__ENABLED": "true",
        "server__ROOT_URL": f"http://{server}/",
        "server__START_SSH_SERVER": "false",
    }
    container = DockerContainer(
        image, env={**settings(), **{f"GITEA__{name}": value for name, value in more.items()}}
    )
    cast("dict[str, Any]", container.ports)[f"{PORT}/tcp"] = ("127.0.0.1", server.split(":")[1])
    with container:
        health = f"http://{server}/api/healthz"
        wait_until(lambda: forward.check_answer(health), what="Gitea", timeout=60)
        password = secrets.token_urlsafe(24)
        words = ["--username", "pusher", "--password", password, "--email", "pusher@lab.invalid"]
        create = ["gitea", "--config", "/etc/gitea/app.ini", "admin", "user", "create", *words]
        name = container.get_container_id()
        docker.docker("exec", name, *create, "--must-change-password=false")
        yield Real(server, Login(server, "pusher", password))


@pytest.fixture
def image(real: Real, tmp_path: Path) -> Iterator[Image]:
    """Build a small image that only this test has, and remove it afterwards."""
    tag = secrets.token_hex(8)
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (folder / "file").write_text(tag)
    name = f"mlops-lab/test:{tag}"
    docker.build(folder, name, {})
    yield Image("test", name, None, folder, {})
    docker.docker("image", "rm", name)


def list_local_names(image: Image) -> list[str]:
    shown = docker.docker("image", "inspect", "--format", "{{json .RepoTags}}", image.name)
    return list(json.loads(shown))


@pytest.mark.kind
def test_a_real_registry_gets_an_image_under_the_digest_that_it_says(
    real: Real, image: Image, tmp_path: Path
) -> None:
    folder = tmp_path / "login"
    target = f"{real.server}/pusher/worker"
    with registry.docker_login(real.login, folder) as env:
        assert folder.stat().st_mode & 0o777 == 0o700
        first = registry.push_image(image.name, f"{target}:{image.tag}", env)
        assert registry.push_image(image.name, f"{target}:{image.tag}", env) == first
    assert first == real.read_digest("pusher/worker", image.tag)
    assert not folder.exists()
    assert list_local_names(image) == [image.name]


@pytest.mark.kind
def test_a_real_registry_refuses_another_password(real: Real, image: Image, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    wrong = Login(real.server, "pusher", "wrong-" + real.login.password)

    def push() -> None:
        with registry.docker_login(wrong, folder) as env:
            registry.push_image(image.name, f"{real.server}/pusher/refused:{image.tag}", env)

    with pytest.raises(LabError, match="docker login") as caught:
        push()
    assert real.login.password not in caught.value.what
    assert not folder.exists()
    assert real.read_digest("pusher/refused", image.tag) is None


@pytest.mark.kind
def test_a_registry_that_is_not_there(real: Real, image: Image, tmp_path: Path) -> None:
    """A push that failed leaves no name behind."""
    env = {**os.environ, **registry.docker_host_env(), "DOCKER_CONFIG": str(tmp_path)}
    with pytest.raises(LabError, match="docker push"):
        registry.push_image(
            image.name, f"127.0.0.1:{find_free_port()}/pusher/worker:{image.tag}", env
        )
    assert list_local_names(image) == [image.name]


@pytest.mark.kind
def test_the_password_is_in_no_argument(
    real: Real, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    original = shell.run

    def record_command(command: list[str], **named: Any) -> str:
        commands.append([str(word) for word in command])
        return original(command, **named)

    monkeypatch.setattr(registry, "run", record_command)
    with registry.docker_login(real.login, tmp_path / "login"):
        pass
    assert commands
    assert not any(real.login.password in word for command in commands for word in command)


@pytest.mark.kind
def test_a_login_that_a_killed_push_left_goes(real: Real, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    folder.mkdir()
    (folder / "config.json").write_text('{"auths": {"elsewhere": {"auth": "b2xk"}}}')
    with registry.docker_login(real.login, folder):
        assert "elsewhere" not in (folder / "config.json").read_text()
    assert not folder.exists()
