"""This checkout's images in the account's registry (ECR), each by its digest."""

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

from eks.aws import call_aws, call_or_none, find_if_ours, foreign_error
from eks.cluster_choices import PLATFORM
from eks.environment import Environment
from eks.rendering import list_pushed
from eks.site import Row, Site, is_ours, tag_list, tags_from_list
from eks.tested_images import SHORT, describe_lack, other_images_error, read_tested
from lab.cluster import docker, images
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import CloudBusy, MachineError, PromotionError
from lab.files import make_private_folder
from lab.shell import run

KIND = "repository"
PUSH_SECONDS = 3600
LOGIN_SECONDS = 60
AGAIN = "run the same command again: what the registry has already is not sent twice"
# An interrupted push leaves untagged layers, and maybe untagged images.
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
    """An account that may push to a registry."""

    server: str
    user: str
    password: str = field(repr=False)


def plan(environment: Environment, config: Config) -> list[Row]:
    """List what `make` creates, and the image that it brings into each."""
    known = images.read_lock(config)
    cost = "GB-months stored"
    return [
        Row(
            "ECR repository",
            repository_name(environment, key),
            f"{known[key].name}; tags are never moved, scanned",
            cost,
        )
        for key in list_pushed(known)
    ]


def repository_name(environment: Environment, key: str) -> str:
    """Return the name of an image's repository: lower case, no two marks in a row, as ECR asks."""
    cluster = re.sub("[^a-z0-9]+", "-", environment.cluster.lower()).strip("-")
    return f"{cluster}/{key}"


def make(site: Site) -> None:
    """Create the repositories unless they exist, and push this checkout's images.

    Raises NameTaken, MachineError.
    """
    for key in list_pushed(images.read_lock(site.config)):
        make_repository(site, repository_name(site.environment, key))
    push_images(site)


# --- Repositories -------------------------------------------------------------------------------


def make_repository(site: Site, repository: str) -> None:
    """Create or configure the repository: tags are never moved, pushed images are scanned."""
    found = find_repository(site, repository)
    with site.ledger.making(KIND, repository) as facts:
        if not found:
            found = create_repository(site, repository)
        else:
            configure_repository(site, repository)
        facts["uri"] = found["repositoryUri"]
        expire_untagged_images(site, repository)


def find_repository(site: Site, repository: str) -> Any:
    """Return ECR's description of the repository; None without one. Raises NameTaken."""
    ecr = site.aws.client("ecr")
    doing = f"look at repository {repository}"
    said = call_or_none(doing, ecr.describe_repositories, repositoryNames=[repository])
    if not said:
        return None
    found = said["repositories"][0]
    tags = call_aws(doing, ecr.list_tags_for_resource, resourceArn=found["repositoryArn"])["tags"]
    if not is_ours(site.environment, tags_from_list(tags)):
        raise foreign_error(KIND, repository, site.environment)
    return found


def create_repository(site: Site, repository: str) -> Any:
    return call_aws(
        f"make repository {repository}",
        site.aws.client("ecr").create_repository,
        repositoryName=repository,
        imageTagMutability="IMMUTABLE",
        imageScanningConfiguration={"scanOnPush": True},
        encryptionConfiguration={"encryptionType": "AES256"},
        tags=tag_list(site.environment),
    )["repository"]


def configure_repository(site: Site, repository: str) -> None:
    """Configure an existing repository as a new one is."""
    ecr = site.aws.client("ecr")
    doing, which = f"settle repository {repository}", {"repositoryName": repository}
    call_aws(doing, ecr.put_image_tag_mutability, imageTagMutability="IMMUTABLE", **which)
    scan = {"scanOnPush": True}
    call_aws(doing, ecr.put_image_scanning_configuration, imageScanningConfiguration=scan, **which)


def expire_untagged_images(site: Site, repository: str) -> None:
    call_aws(
        f"tidy repository {repository}",
        site.aws.client("ecr").put_lifecycle_policy,
        repositoryName=repository,
        lifecyclePolicyText=json.dumps(TIDY),
    )


def remove(site: Site) -> None:
    """Delete the repositories and the images in them."""
    made = {entry.name for entry in site.ledger.entries(KIND)}
    pushed = list_pushed(images.read_lock(site.config))
    for repository in sorted(made | {repository_name(site.environment, key) for key in pushed}):
        if find_if_ours(find_repository, site, repository):
            call_or_none(
                f"delete repository {repository}",
                site.aws.client("ecr").delete_repository,
                repositoryName=repository,
                force=True,
            )
        site.ledger.forget(KIND, repository)


# --- Images -------------------------------------------------------------------------------------


def push_images(site: Site) -> dict[str, str]:
    """Push the images that the registry lacks; return each as `repository@sha256:…`, by its key."""
    present, known = list_references(site), images.read_lock(site.config)
    lacking = [known[key] for key in list_pushed(known) if key not in present]
    if lacking:
        with docker_login(get_login(site), site.folder / "docker") as env:
            for image in lacking:
                chosen = require_id(site, image)
                refuse_other_machine(image.name, chosen)
                push_image(chosen, f"{repository_uri(site, image.key)}:{tag(image, chosen)}", env)
    return require_references(site)


def list_references(site: Site) -> dict[str, str]:
    """Return the images that the registry has as `repository@sha256:…`, by their keys."""
    known = images.read_lock(site.config)
    digests = {key: find_digest(site, known[key]) for key in list_pushed(known)}
    return {key: f"{repository_uri(site, key)}@{found}" for key, found in digests.items() if found}


def find_digest(site: Site, image: Image) -> str | None:
    """Return the registry's digest of the image that an apply brings; None when it lacks it."""
    for chosen in list_ids(site, image):
        said = call_or_none(
            f"look for image {image.name}",
            site.aws.client("ecr").describe_images,
            repositoryName=repository_name(site.environment, image.key),
            imageIds=[{"imageTag": tag(image, chosen)}],
        )
        if said:
            return str(said["imageDetails"][0]["imageDigest"])
    return None


def list_ids(site: Site, image: Image) -> list[str]:
    """List the IDs that an apply may bring the image by: that which kind ran, before any other.

    Another one is Docker's own, where the environment's file allows images that kind did not run.
    """
    tested = read_tested(site.environment, site.config).get(image.name)
    first = [tested.id] if tested else []
    own = docker.image_id(image.name) if site.environment.untested_images else None
    return [*first, *([own] if own and own not in first else [])]


def require_id(site: Site, image: Image) -> str:
    """Return the ID of the image to push, which Docker has.

    Where images that kind did not run are allowed, one that Docker lacks is built. Raises
    PromotionError when Docker lacks the image that kind ran.
    """
    if site.environment.untested_images and not any(map(docker.image_id, list_ids(site, image))):
        images.ensure_image(images.read_lock(site.config), image)
    found = next((one for one in list_ids(site, image) if docker.image_id(one)), None)
    if found is None:
        tested = read_tested(site.environment, site.config)
        raise other_images_error([describe_lack(image, tested)])
    return found


def tag(image: Image, chosen: str) -> str:
    """Return the image's tag in the registry: what it is built from, and which build it is."""
    return f"{image.tag}-{chosen.rpartition(':')[2][:SHORT]}"


def repository_uri(site: Site, key: str) -> str:
    """Return the address of an image's repository, which must exist."""
    repository = repository_name(site.environment, key)
    entry = site.ledger.find(KIND, repository)
    facts = entry.facts if entry else {}
    return str(facts.get("uri") or find_repository(site, repository)["repositoryUri"])


def require_references(site: Site) -> dict[str, str]:
    """Return the references of all images. Raises CloudBusy when the registry lacks one."""
    references = list_references(site)
    if lacking := sorted({*list_pushed(images.read_lock(site.config))} - {*references}):
        raise CloudBusy(f"the registry does not have {', '.join(lacking)} yet", AGAIN)
    return references


def refuse_other_machine(name: str, chosen: str) -> None:
    """Raise MachineError when the cluster's machines could not run the image of this ID."""
    said = docker.image_platform(chosen)
    if said != PLATFORM:
        raise MachineError(
            f"{name} is for {said}, and the cluster's machines are {PLATFORM}",
            f"build and prove it on such a machine, or here: {docker.PLATFORM}={PLATFORM} in front"
            " of the test on kind, and of this command",
        )


def get_login(site: Site) -> Login:
    """Return a login to the registry, valid for twelve hours."""
    said = call_aws("sign in to the registry", site.aws.client("ecr").get_authorization_token)
    data = said["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return Login(data["proxyEndpoint"].removeprefix("https://"), user, password)


# --- Docker: any registry -----------------------------------------------------------------------


@contextmanager
def docker_login(who: Login, folder: Path) -> Iterator[Mapping[str, str]]:
    """Log in to a registry and yield the environment for `docker push`.

    The login is in `folder`, which is deleted afterwards.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a killed push
    make_private_folder(folder)
    env = {**os.environ, **docker_host_env(), "DOCKER_CONFIG": str(folder)}
    command = ["docker", "login", "--username", who.user, "--password-stdin", who.server]
    try:
        run(command, timeout=LOGIN_SECONDS, fix=AGAIN, env=env, stdin=who.password)
        yield env
    finally:
        shutil.rmtree(folder)


def docker_host_env() -> dict[str, str]:
    """Return DOCKER_HOST: our own configuration folder does not know the person's context."""
    if "DOCKER_HOST" in os.environ:
        return {}
    shown = docker.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    return {"DOCKER_HOST": shown.strip()} if shown.strip() else {}


def push_image(image: str, target: str, env: Mapping[str, str]) -> str:
    """Push the image as `target`; return the digest that the registry has it under."""
    docker.docker("tag", image, target)
    try:
        said = run(["docker", "push", target], timeout=PUSH_SECONDS, fix=AGAIN, env=env)
    finally:
        docker.docker("image", "rm", target)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    if not found:
        raise PromotionError(f"docker did not say under which digest it pushed {target}", AGAIN)
    return found[1]
