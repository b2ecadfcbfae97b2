"""The YAML that is applied on kind and on AWS: the overlay's objects and the chart's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eks.environment import OPTIONS, Environment
from eks.tested_images import PUBLIC, read_pinned
from lab.backends.kind import backend as kind
from lab.backends.kind import injection, stores
from lab.cluster import chart, images, manifests
from lab.cluster.images import Image
from lab.cluster.manifests import Setting
from lab.cluster.workloads import AIRFLOW
from lab.config import Config
from lab.files import write_private_file

OVERLAY = Path("manifests", "overlays", "eks")
VALUES = Path("manifests", "airflow")
CONTRACT = Path("manifests", "base", "step-environment.yaml")  # Airflow's pods read it, too
LATER = "to-be-pushed.invalid"  # stands in for the registry before images are pushed
PUSHED = ("worker", "trainer")  # the kit's images that are built here; the others are public


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
    known = images.read_lock(config)
    overlay = manifests.render(config.kit / stores.OVERLAY, make_folder(folder), known.values())
    overlay = add_own_templates(config, overlay, {key: known[key].name for key in known})
    overlay = f"{overlay}---\n{injection.render_identity(config.kit)}"
    return Rendering(overlay, chart.render(config, kind_values_files(config, folder, known)))


def kind_values_files(config: Config, folder: Path, known: dict[str, Image]) -> list[Path]:
    return [
        *(config.kit / name for name in kind.VALUES),
        write_image_values(config.kit, folder, known),
    ]


def render_eks(
    environment: Environment, config: Config, folder: Path, outputs: AwsOutputs | None = None
) -> Rendering:
    """Render what `apply` applies. Raise EnvironmentFileError if an option's setting is missing."""
    return Rendering(
        render_overlay(environment, config, folder, outputs or AwsOutputs()),
        chart.render(config, write_values_files(environment, config, folder)),
    )


def render_overlay(
    environment: Environment, config: Config, folder: Path, outputs: AwsOutputs
) -> str:
    """Render the overlay with the environment's options and its values filled in."""
    images_here = read_pinned(environment, config)
    later = {key: f"{LATER}/{images_here[key].name}" for key in list_pushed(images_here)}
    pinned = {key: digest_reference(images_here[key]) for key in PUBLIC}
    moved = {**later, **pinned, **outputs.pushed}
    rendered = manifests.render(
        config.kit / OVERLAY,
        make_folder(folder),
        images_here.values(),
        # As a setting: a path may be a word that YAML would take for a number.
        [Setting(AIRFLOW, "step-environment", "DATASET_PATH", environment.dataset)],
        component_folders(environment, config.kit),
        moved,
    )
    filled = environment.fill(rendered, OVERLAY, filesystem=outputs.filesystem)
    return add_own_templates(config, filled, moved)


def list_pushed(known: Mapping[str, Image]) -> list[str]:
    """List the keys of the images that are built here, so that the registry must have them."""
    return [*PUSHED, *images.list_own(known)]


def add_own_templates(config: Config, rendered: str, references: Mapping[str, str]) -> str:
    """Return the rendering with the PodTemplates of the project's own images."""
    own = config.project.images.values()
    return manifests.add_own_templates(rendered, own, references)


def digest_reference(image: Image) -> str:
    """Return a public image's reference by the lock's digest, since its tag may be moved."""
    return f"{image.repository}@{image.digest}" if image.digest else image.name


def component_folders(environment: Environment, kit: Path) -> list[Path]:
    """Return the Kustomize components of the options. Sorted by name, however they are listed: some
    change what others have added."""
    folders = [kit / OPTIONS / option for option in sorted(environment.options)]
    return [folder for folder in folders if (folder / "kustomization.yaml").exists()]


def write_values_files(
    environment: Environment, config: Config, folder: Path, secrets: str = "none yet"
) -> list[Path]:
    """Write the chart's values files and return their paths, the highest precedence last.

    `secrets` must change when a Secret of the cluster does. Raise EnvironmentFileError when an
    option's file needs a setting that is not given.
    """
    kit = config.kit
    sources = [kit / VALUES / "values-eks.yaml"]
    sources += [kit / OPTIONS / option / "values.yaml" for option in environment.options]
    own = [
        write_filled_values(environment, source, make_folder(folder))
        for source in sources
        if source.exists()
    ]
    pinned = read_pinned(environment, config)
    from_images = write_image_values(kit, folder, pinned, digest_reference(pinned["airflow"]))
    restart = write_restart_values(environment, kit, folder, secrets)
    return [kit / VALUES / "values.yaml", *own, from_images, restart]


def write_filled_values(environment: Environment, source: Path, folder: Path) -> Path:
    """Write `source` to `folder` with the environment's values filled in; return the path."""
    target = folder / f"values-{source.parent.name}.yaml"
    write_private_file(target, environment.fill(source.read_text("utf-8"), source))
    return target


def write_image_values(
    kit: Path, folder: Path, known: dict[str, Image], airflow: str | None = None
) -> Path:
    """Write the values of images and plugins to `folder`; return the path.

    `airflow` is the reference of Airflow's image, if it is another one than its name.
    """
    return manifests.write_values(kit, known, make_folder(folder) / "values-images.yaml", airflow)


def write_restart_values(environment: Environment, kit: Path, folder: Path, secrets: str) -> Path:
    """Write pod annotations that change with what pods read at their start; return the path.

    They restart the pods: a changed ConfigMap or Secret alone does not.
    """
    known = dict(environment.words) | {"secrets": secrets}
    known["contract"] = (kit / CONTRACT).read_text("utf-8")
    for source in (kit / OVERLAY, *component_folders(environment, kit)):
        known["before"] = images.content_tag(source, known)
    noted = {"mlops-lab/environment": known["before"]}
    file = make_folder(folder) / "values-restart.yaml"
    text = {"airflowPodAnnotations": noted, "pgbouncer": {"podAnnotations": noted}}
    write_private_file(file, json.dumps(text, indent=1))
    return file


def make_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
