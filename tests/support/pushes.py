"""A docker that pushes into moto's registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from eks import registry
from lab.cluster import docker, images
from lab.config import Config
from lab.errors import LabError
from tests.support.attested import id_on_kind, with_images
from tests.support.cloud import Cloud

if TYPE_CHECKING:
    import pytest


@dataclass
class Docker:
    """A docker that pushes into moto's ECR.

    It has every image by the ID that the attestation names, but for those that it `lacks`; by its
    name, each has the ID in `others`, or the same.
    """

    cloud: Cloud
    pushed: list[str] = field(default_factory=list)
    fails: bool = False
    architecture: str = "amd64"
    lacks: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)

    def push_image(self, image: str, target: str, env: Mapping[str, str]) -> str:
        assert Path(env["DOCKER_CONFIG"]).is_dir()
        if self.fails:
            raise LabError("the network went away", "again")
        self.pushed.append(target)
        repository, _, tag = target.partition("/")[2].rpartition(":")
        said = self.cloud.client("ecr").put_image(
            repositoryName=repository,
            imageTag=tag,
            imageManifest=make_manifest(image),
            imageDigest=f"sha256:{hashlib.sha256(make_manifest(image).encode()).hexdigest()}",
        )
        return str(said["image"]["imageId"]["imageDigest"])

    def docker(self, *arguments: str, **_: object) -> str:
        assert arguments[:4] == ("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}")
        return f"linux/{self.architecture}\n"

    def image_id(self, name: str) -> str | None:
        found = name if name.startswith("sha256:") else self.others.get(name, id_on_kind(name))
        return None if found in self.lacks else found


def make_manifest(image: str) -> str:
    """Return a manifest that differs from image to image."""
    empty = {"mediaType": "application/x", "size": 1, "digest": "sha256:" + "0" * 64}
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    said = {"schemaVersion": 2, "mediaType": kind, "config": empty, "layers": [], "of": image}
    return json.dumps(said)


def use_docker(cloud: Cloud, patch: pytest.MonkeyPatch, attestation: Path) -> Docker:
    """Have this docker take the real one's place, where an attestation names all images."""
    found = Docker(cloud)
    with_images(Config(home=attestation.parent), attestation)
    patch.setenv("LAB_ATTESTATION", str(attestation))
    patch.setattr(registry, "push_image", found.push_image)
    patch.setattr(registry, "docker_host_env", dict)
    patch.setattr(registry, "run", lambda *_, **__: "")
    patch.setattr(docker, "docker", found.docker)
    patch.setattr(docker, "image_id", found.image_id)
    patch.setattr(images, "ensure_image", lambda *_: None)
    return found
