"""The YAML that is applied on kind and on AWS: the overlay's objects and the chart's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eks.environment import OPTIONS, Environment
from lab.backends.kind import backend as kind
from lab.backends.kind import stores
from lab.cluster import chart, images, manifests
from lab.cluster.images import Image
from lab.config import Config
from lab.files import write_private_file

OVERLAY = Path("manifests", "overlays", "eks")
VALUES = Path("manifests", "airflow")
CONTRACT = Path("manifests", "base", "step-environment.yaml")  # Airflow's pods read it, too
LATER = "to-be-pushed.invalid"  # stands in for the registry before images are pushed
PINNED = ("postgresql",)  # public images in the overlay
PUSHED = ("worker", "trainer")  # images built here; the others are public


@dataclass(frozen=True)
class AwsOutputs:
    """What is known only once AWS has made it; the defaults are placeholders until then."""

    filesystem: str = "fs-00000000000000000"
    pushed: Mapping[str, str] = field(default_factory=dict)  # `repository@sha256:…` by image key


@dataclass(frozen=True)
class Rendering:
    """Everything that is applied to one target, as YAML."""

    overlay: str
    chart: str

    def objects(self) -> list[dict[str, Any]]:
        """Return all objects, the overlay's first."""
        return [*manifests.parse_objects(self.overlay), *manifests.parse_objects(self.chart)]


def render_kind(config: Config, folder: Path) -> Rendering:
    """Render what `lab up` applies on kind, except ports and names, which each lab chooses."""
    known = images.read_lock(config.tree)
    overlay = manifests.render(config.tree / stores.OVERLAY, make_folder(folder), known.values())
    return Rendering(overlay, chart.render(config, kind_values_files(config, folder, known)))


def kind_values_files(config: Config, folder: Path, known: dict[str, Image]) -> list[Path]:
    return [
        *(config.tree / name for name in kind.VALUES),
        write_image_values(config.tree, folder, known),
    ]


def render_eks(
    environment: Environment, config: Config, folder: Path, outputs: AwsOutputs | None = None
) -> Rendering:
    """Render what `apply` applies. Raise EnvironmentFileError if an option's setting is missing."""
    return Rendering(
        render_overlay(environment, config.tree, folder, outputs or AwsOutputs()),
        chart.render(config, write_values_files(environment, config.tree, folder)),
    )


def render_overlay(environment: Environment, tree: Path, folder: Path, outputs: AwsOutputs) -> str:
    """Render the overlay with the environment's options and its values filled in."""
    images_here = images.read_lock(tree)
    later = {key: f"{LATER}/{images_here[key].name}" for key in PUSHED}
    pinned = {key: digest_reference(images_here[key]) for key in PINNED}
    rendered = manifests.render(
        tree / OVERLAY,
        make_folder(folder),
        images_here.values(),
        components=component_folders(environment, tree),
        moved={**later, **pinned, **outputs.pushed},
    )
    return environment.fill(rendered, OVERLAY, filesystem=outputs.filesystem)


def digest_reference(image: Image) -> str:
    """Return a public image's reference by the lock's digest, since its tag may be moved."""
    return f"{image.repository}@{image.digest}" if image.digest else image.name


def component_folders(environment: Environment, tree: Path) -> list[Path]:
    """Return the Kustomize components of the options. Sorted by name, however they are listed: some
    change what others have added."""
    folders = [tree / OPTIONS / option for option in sorted(environment.options)]
    return [folder for folder in folders if (folder / "kustomization.yaml").exists()]


def write_values_files(
    environment: Environment, tree: Path, folder: Path, secrets: str = "none yet"
) -> list[Path]:
    """Write the chart's values files and return their paths, the highest precedence last.

    `secrets` must change when a Secret of the cluster does. Raise EnvironmentFileError when an
    option's file needs a setting that is not given.
    """
    sources = [tree / VALUES / "values-eks.yaml"]
    sources += [tree / OPTIONS / option / "values.yaml" for option in environment.options]
    own = [
        write_filled_values(environment, source, make_folder(folder))
        for source in sources
        if source.exists()
    ]
    from_images = write_image_values(tree, folder, images.read_lock(tree))
    restart = write_restart_values(environment, tree, folder, secrets)
    return [tree / VALUES / "values.yaml", *own, from_images, restart]


def write_filled_values(environment: Environment, source: Path, folder: Path) -> Path:
    """Write `source` to `folder` with the environment's values filled in; return the path."""
    target = folder / f"values-{source.parent.name}.yaml"
    write_private_file(target, environment.fill(source.read_text("utf-8"), source))
    return target


def write_image_values(tree: Path, folder: Path, known: dict[str, Image]) -> Path:
    """Write the values of images and plugins to `folder`; return the path."""
    return manifests.write_values(tree, known, make_folder(folder) / "values-images.yaml")


def write_restart_values(environment: Environment, tree: Path, folder: Path, secrets: str) -> Path:
    """Write pod annotations that change with what pods read at their start; return the path.

    They restart the pods: a changed ConfigMap or Secret alone does not.
    """
    known = dict(environment.words) | {"secrets": secrets}
    known["contract"] = (tree / CONTRACT).read_text("utf-8")
    for source in (tree / OVERLAY, *component_folders(environment, tree)):
        known["before"] = images.content_tag(source, known)
    noted = {"mlops-lab/environment": known["before"]}
    file = make_folder(folder) / "values-restart.yaml"
    text = {"airflowPodAnnotations": noted, "pgbouncer": {"podAnnotations": noted}}
    write_private_file(file, json.dumps(text, indent=1))
    return file


def make_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
