"""The images that this checkout builds, in the account's registry: each by its digest."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eks.aws import ask, find, foreign, unless_foreign
from eks.environment import Environment
from eks.rendering import PUSHED
from eks.site import Row, Site, is_ours, tagged, tags_of
from lab.cluster import docker, images
from lab.cluster.images import Image
from lab.errors import CloudBusy, MachineError, PromotionError
from lab.files import make_private
from lab.shell import run

KIND = "repository"
ARCHITECTURE = "amd64"  # of the machines in eks/cluster.yaml
PUSH_SECONDS = 3600
LOGIN_SECONDS = 60
AGAIN = "run the same command again: what the registry has already is not sent twice"
# A push that was cut off leaves layers, and maybe images, that no tag names.
TIDY = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "what no tag names",
            "selection": {
                "tagStatus": "untagged",
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": 14,
            },
            "action": {"type": "expire"},
        }
    ]
}


@dataclass(frozen=True)
class Login:
    """Who may push to a registry."""

    server: str
    user: str
    password: str = field(repr=False)


def plan(environment: Environment) -> list[Row]:
    """What `make` makes."""
    cost = "GB-months stored"
    return [
        Row("ECR repository", name(environment, key), "tags are never moved, scanned", cost)
        for key in PUSHED
    ]


def name(environment: Environment, key: str) -> str:
    """The repository of an image. ECR's names have small letters, and no two marks in a row."""
    cluster = re.sub("[^a-z0-9]+", "-", environment.cluster.lower()).strip("-")
    return f"{cluster}/{key}"


def make(site: Site) -> None:
    """The registry has the images of this checkout. Raises NameTaken, MachineError."""
    for key in PUSHED:
        make_repository(site, name(site.environment, key))
    push(site)


# --- Repositories -------------------------------------------------------------------------------


def make_repository(site: Site, repository: str) -> None:
    """The repository is there: a tag once given is never moved, what is pushed is scanned."""
    found = look(site, repository)
    with site.ledger.making(KIND, repository) as facts:
        if not found:
            found = create(site, repository)
        else:
            settle(site, repository)
        facts["uri"] = found["repositoryUri"]
        tidy(site, repository)


def look(site: Site, repository: str) -> Any:
    """What ECR says about the repository; None without one. Raises NameTaken."""
    ecr = site.aws.client("ecr")
    doing = f"look at repository {repository}"
    said = find(doing, ecr.describe_repositories, repositoryNames=[repository])
    if not said:
        return None
    found = said["repositories"][0]
    tags = ask(doing, ecr.list_tags_for_resource, resourceArn=found["repositoryArn"])["tags"]
    if not is_ours(site.environment, tags_of(tags)):
        raise foreign(KIND, repository, site.environment)
    return found


def create(site: Site, repository: str) -> Any:
    return ask(
        f"make repository {repository}",
        site.aws.client("ecr").create_repository,
        repositoryName=repository,
        imageTagMutability="IMMUTABLE",
        imageScanningConfiguration={"scanOnPush": True},
        encryptionConfiguration={"encryptionType": "AES256"},
        tags=tagged(site.environment),
    )["repository"]


def settle(site: Site, repository: str) -> None:
    """A repository that is there is as a new one would be."""
    ecr = site.aws.client("ecr")
    doing, which = f"settle repository {repository}", {"repositoryName": repository}
    ask(doing, ecr.put_image_tag_mutability, imageTagMutability="IMMUTABLE", **which)
    scan = {"scanOnPush": True}
    ask(doing, ecr.put_image_scanning_configuration, imageScanningConfiguration=scan, **which)


def tidy(site: Site, repository: str) -> None:
    ask(
        f"tidy repository {repository}",
        site.aws.client("ecr").put_lifecycle_policy,
        repositoryName=repository,
        lifecyclePolicyText=json.dumps(TIDY),
    )


def remove(site: Site) -> None:
    """There are no repositories, and none of the images that were in them."""
    made = {entry.name for entry in site.ledger.entries(KIND)}
    for repository in sorted(made | {name(site.environment, key) for key in PUSHED}):
        if unless_foreign(look, site, repository):
            find(
                f"delete repository {repository}",
                site.aws.client("ecr").delete_repository,
                repositoryName=repository,
                force=True,
            )
        site.ledger.forget(KIND, repository)


# --- Images -------------------------------------------------------------------------------------


def push(site: Site) -> dict[str, str]:
    """Each image as `repository@sha256:…`, by its key. What the registry has is not sent again."""
    known = images.locked(site.tree)
    held = digests(site)
    lacking = [known[key] for key in PUSHED if key not in held]
    for image in lacking:
        images.provide(known, image)
        refuse_other_machine(image)
    if lacking:
        with signed_in(login(site), site.folder / "docker") as env:
            for image in lacking:
                send(image.name, f"{uri(site, image.key)}:{image.tag}", env)
    return confirmed(site)


def digests(site: Site) -> dict[str, str]:
    """The same for the images that the registry has by now."""
    known = images.locked(site.tree)
    held = {key: digest(site, known[key]) for key in PUSHED}
    return {key: f"{uri(site, key)}@{found}" for key, found in held.items() if found}


def digest(site: Site, image: Image) -> str | None:
    """What the registry says is the digest of this content; None when it has none."""
    said = find(
        f"look for image {image.name}",
        site.aws.client("ecr").describe_images,
        repositoryName=name(site.environment, image.key),
        imageIds=[{"imageTag": image.tag}],
    )
    return str(said["imageDetails"][0]["imageDigest"]) if said else None


def uri(site: Site, key: str) -> str:
    """The address of an image's repository, which is there."""
    repository = name(site.environment, key)
    entry = site.ledger.find(KIND, repository)
    facts = entry.facts if entry else {}
    return str(facts.get("uri") or look(site, repository)["repositoryUri"])


def confirmed(site: Site) -> dict[str, str]:
    """All images, as the registry has them. Raises CloudBusy when it lacks one that was sent."""
    held = digests(site)
    if lacking := sorted({*PUSHED} - {*held}):
        raise CloudBusy(f"the registry does not have {', '.join(lacking)} yet", AGAIN)
    return held


def refuse_other_machine(image: Image) -> None:
    """Raises MachineError when the cluster's machines could not run the image."""
    said = docker.docker("image", "inspect", "--format", "{{.Architecture}}", image.name).strip()
    if said != ARCHITECTURE:
        raise MachineError(
            f"{image.name} is for {said}, and the cluster's machines are {ARCHITECTURE}",
            "build and prove it on such a machine, or with"
            f" DOCKER_DEFAULT_PLATFORM=linux/{ARCHITECTURE}",
        )


def login(site: Site) -> Login:
    """The registry's login of the next twelve hours."""
    said = ask("sign in to the registry", site.aws.client("ecr").get_authorization_token)
    data = said["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return Login(data["proxyEndpoint"].removeprefix("https://"), user, password)


# --- Docker: any registry -----------------------------------------------------------------------


@contextmanager
def signed_in(who: Login, folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment in which `docker push` may: the login is in a folder that goes afterwards."""
    shutil.rmtree(folder, ignore_errors=True)  # a killed push may have left one
    make_private(folder)
    env = {**os.environ, **engine(), "DOCKER_CONFIG": str(folder)}
    command = ["docker", "login", "--username", who.user, "--password-stdin", who.server]
    try:
        run(command, timeout=LOGIN_SECONDS, fix=AGAIN, env=env, stdin=who.password)
        yield env
    finally:
        shutil.rmtree(folder)


def engine() -> dict[str, str]:
    """Where Docker is: a configuration of our own does not know which context a person uses."""
    if "DOCKER_HOST" in os.environ:
        return {}
    shown = docker.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    return {"DOCKER_HOST": shown.strip()} if shown.strip() else {}


def send(image: str, target: str, env: Mapping[str, str]) -> str:
    """The digest under which the registry now has the image as `target`."""
    docker.docker("tag", image, target)
    try:
        said = run(["docker", "push", target], timeout=PUSH_SECONDS, fix=AGAIN, env=env)
    finally:
        docker.docker("image", "rm", target)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    if not found:
        raise PromotionError(f"docker did not say under which digest it pushed {target}", AGAIN)
    return found[1]
