"""What would be applied, on kind and on AWS: the overlay's objects and the chart's, as YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eks.environment import OPTIONS, Environment
from lab.backends.kind import backend as kind
from lab.cluster import chart, images, manifests
from lab.cluster.images import Image
from lab.config import Config
from lab.files import write_private

OVERLAY = Path("manifests", "overlays", "eks")
VALUES = Path("manifests", "airflow")
CONTRACT = Path("manifests", "base", "step-environment.yaml")  # which Airflow's pods have, too
LATER = "to-be-pushed.invalid"  # the registry's name
PINNED = ("postgresql",)  # public ones that the overlay has
PUSHED = ("worker", "trainer")  # the images that are built here; the others are public


@dataclass(frozen=True)
class Made:
    """What only AWS can say, once it has made it. Something stands in for it before."""

    filesystem: str = "fs-00000000000000000"
    pushed: Mapping[str, str] = field(default_factory=dict)  # `repository@sha256:…` by image's key


@dataclass(frozen=True)
class Rendering:
    """Everything that one target gets."""

    overlay: str
    chart: str

    def objects(self) -> list[dict[str, Any]]:
        """All objects, the overlay's first."""
        return [*manifests.objects(self.overlay), *manifests.objects(self.chart)]


def on_kind(config: Config, folder: Path) -> Rendering:
    """What `lab up` applies on kind, but for the ports and names that each lab chooses."""
    known = images.locked(config.tree)
    overlay = manifests.render(config.tree / kind.OVERLAY, made(folder), known.values())
    return Rendering(overlay, chart.render(config, kind_values(config, folder, known)))


def kind_values(config: Config, folder: Path, known: dict[str, Image]) -> list[Path]:
    return [*(config.tree / name for name in kind.VALUES), generated(config.tree, folder, known)]


def on_eks(
    environment: Environment, config: Config, folder: Path, known: Made | None = None
) -> Rendering:
    """What `apply` applies. Raises EnvironmentFileError when a setting of an option lacks."""
    return Rendering(
        overlay(environment, config.tree, folder, known or Made()),
        chart.render(config, values(environment, config.tree, folder)),
    )


def overlay(environment: Environment, tree: Path, folder: Path, known: Made) -> str:
    """The overlay with the environment's options, its words filled in."""
    images_here = images.locked(tree)
    later = {key: f"{LATER}/{images_here[key].name}" for key in PUSHED}
    pinned = {key: by_digest(images_here[key]) for key in PINNED}
    rendered = manifests.render(
        tree / OVERLAY,
        made(folder),
        images_here.values(),
        components=components(environment, tree),
        moved={**later, **pinned, **known.pushed},
    )
    return environment.fill(rendered, OVERLAY, filesystem=known.filesystem)


def by_digest(image: Image) -> str:
    """A public image as the lock has it: its tag may be moved, its digest may not."""
    return f"{image.repository}@{image.digest}" if image.digest else image.name


def components(environment: Environment, tree: Path) -> list[Path]:
    """What the options add to the overlay, and change in it. Some change what others have added:
    they come in the order of the alphabet, however they were listed."""
    folders = [tree / OPTIONS / option for option in sorted(environment.options)]
    return [folder for folder in folders if (folder / "kustomization.yaml").exists()]


def values(
    environment: Environment, tree: Path, folder: Path, secrets: str = "none yet"
) -> list[Path]:
    """The files of values that the chart is installed with, the strongest last. `secrets` is
    another one when a Secret of the cluster is. Raises EnvironmentFileError when an option's file
    asks for a setting that is not given."""
    sources = [tree / VALUES / "values-eks.yaml"]
    sources += [tree / OPTIONS / option / "values.yaml" for option in environment.options]
    own = [filled(environment, source, made(folder)) for source in sources if source.exists()]
    from_images = generated(tree, folder, images.locked(tree))
    restart = restarting(environment, tree, folder, secrets)
    return [tree / VALUES / "values.yaml", *own, from_images, restart]


def filled(environment: Environment, source: Path, folder: Path) -> Path:
    """A file in `folder` that holds the text of `source` with its words filled in."""
    target = folder / f"values-{source.parent.name}.yaml"
    write_private(target, environment.fill(source.read_text("utf-8"), source))
    return target


def generated(tree: Path, folder: Path, known: dict[str, Image]) -> Path:
    """The file of values that images and plugins decide, in `folder`."""
    return manifests.write_values(tree, known, made(folder) / "values-images.yaml")


def restarting(environment: Environment, tree: Path, folder: Path, secrets: str) -> Path:
    """The file of values that changes when what pods read as they start does: then they restart.

    A ConfigMap or a Secret that is another one restarts no pod.
    """
    known = dict(environment.words) | {"secrets": secrets}
    known["contract"] = (tree / CONTRACT).read_text("utf-8")
    for source in (tree / OVERLAY, *components(environment, tree)):
        known["before"] = images.content(source, known)
    noted = {"mlops-lab/environment": known["before"]}
    file = made(folder) / "values-restart.yaml"
    text = {"airflowPodAnnotations": noted, "pgbouncer": {"podAnnotations": noted}}
    write_private(file, json.dumps(text, indent=1))
    return file


def made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
