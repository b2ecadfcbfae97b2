"""The check, before anything is changed, that the images to bring are those that kind ran."""

from __future__ import annotations

from collections.abc import Mapping

from eks.registry import find_digest, refuse_other_machine
from eks.rendering import list_pushed
from eks.site import Site
from eks.tested_images import (
    Tested,
    describe_lack,
    describe_other,
    list_public,
    other_images_error,
    read_pinned,
    read_tested,
)
from lab.cluster import docker
from lab.cluster.images import Image


def check_images(site: Site) -> list[str]:
    """Return a line about each image that kind did not run, where the environment allows that.

    Raises PromotionError where it does not, and MachineError for images that the cluster's machines
    can't run.
    """
    tested = read_tested(site.environment, site.config)
    known = read_pinned(site.environment, site.config)
    built = [known[key] for key in list_pushed(known)]
    public = (describe_other(known[key], tested) for key in list_public(site.environment.options))
    lost = (describe_lack(one, tested) for one in built if is_lost(site, one, tested))
    others = [*filter(None, public), *lost]
    if others and not site.environment.untested_images:
        raise other_images_error(others)
    for image in built:
        if image.name in tested and docker.image_id(tested[image.name].id):
            refuse_other_machine(image.name, tested[image.name].id)
    return [f"image   {line}" for line in others]


def is_lost(site: Site, image: Image, tested: Mapping[str, Tested]) -> bool:
    """Return whether neither Docker nor the registry has the build that kind ran."""
    known = tested.get(image.name)
    return not (known and (docker.image_id(known.id) or find_digest(site, image)))
