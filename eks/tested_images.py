"""The images that kind ran, as the attestation names them: what an apply brings must be the same.

A public image has the digests of its registries; one that was built has Docker's ID alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from eks import attestation
from eks.environment import Environment
from lab.cluster import images
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import PromotionError

PUBLIC = ("airflow", "postgresql")  # of the images that an apply brings, those that are not pushed
SHORT = 12  # digits of an ID in a tag


@dataclass(frozen=True)
class Tested:
    """An image as Docker had it when the tests on kind were green."""

    id: str  # `sha256:…`
    digests: tuple[str, ...] = ()


def read_tested(environment: Environment, config: Config) -> dict[str, Tested]:
    """Return what kind ran, by the images' names; nothing without an attestation that counts."""
    key = attestation.public_key_path(environment, config)
    try:
        told = attestation.read(attestation.attestation_path(config), key).predicate
    except PromotionError:
        return {}
    return {
        str(one["name"]): Tested(str(one["id"]), tuple(one.get("digests", ())))
        for one in told.get("images", ())
    }


def read_pinned(environment: Environment, config: Config) -> dict[str, Image]:
    """Return the lock's images by key; a public one without a digest has that which kind ran."""
    known, tested = images.read_lock(config), read_tested(environment, config)
    return {key: pin(image, tested) for key, image in known.items()}


def pin(image: Image, tested: Mapping[str, Tested]) -> Image:
    """Return the image with a digest that kind ran, if it is public and has none of the lock's."""
    known = tested.get(image.name)
    if known and known.digests and not (image.is_built or image.digest):
        return replace(image, digest=known.digests[0])
    return image


def describe_other(image: Image, tested: Mapping[str, Tested]) -> str:
    """Return how a public image differs from the one that kind ran; an empty text if not at all."""
    if image.name not in tested:
        return f"{image.name}: it is not among what kind ran"
    if not image.digest:
        return f"{image.name}: kind ran an image of that machine's own, which no registry has"
    if image.digest not in tested[image.name].digests:
        return f"{image.name}: kind ran another one than the lock's {image.digest[: 7 + SHORT]}"
    return ""


def describe_lack(image: Image, tested: Mapping[str, Tested]) -> str:
    """Return what is wrong with a built image of which the build that kind ran can't be had."""
    if image.name not in tested:
        return f"{image.name}: it is not among what kind ran"
    return f"{image.name}: neither Docker nor the registry has the one that kind ran"


def other_images_error(others: Collection[str]) -> PromotionError:
    listed = "".join(f"\n    {line}" for line in others)
    return PromotionError(
        f"these images are not those that kind ran:{listed}",
        "test and apply on one machine, or bring the images (docker save, docker load); or allow"
        " them: untested_images = true in the environment's file",
    )


def list_public(options: Collection[str]) -> list[str]:
    """List the keys of the public images that an apply brings."""
    return [key for key in PUBLIC if key != "postgresql" or "rds" not in options]
