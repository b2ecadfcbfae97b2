"""What is applied to a cluster: the overlay, with image tags and this lab's choices."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lab.cluster import images, tools
from lab.cluster.images import Image
from lab.config import PLUGINS
from lab.files import write_private
from lab.shell import run

RENDER_SECONDS = 60
Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """One value of a ConfigMap that only this lab can know."""

    namespace: str
    config_map: str
    key: str
    value: str


def render(
    overlay: Path,
    folder: Path,
    known: Iterable[Image],
    settings: Iterable[Setting] = (),
    components: Iterable[Path] = (),
    moved: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The overlay's objects as YAML, with the lock's images. `folder` is written to.

    `components` are Kustomize's, on top of the overlay; `moved` says by an image's key where it is
    in another registry: `repository@sha256:…`, or `repository:tag`.

    An overlay may not know tags that are made of an image's content, nor ports that are free here;
    so it is wrapped in one more layer, as `kustomize edit set image` would do in the tree itself.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    layer = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [beside(overlay, folder)],
        "components": [beside(path, folder) for path in components],
        "images": [placed(image, moved.get(image.key, image.name)) for image in known],
        "patches": [patch(setting) for setting in settings],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(layer), "utf-8")
    return run([tools.find("kubectl"), "kustomize", folder], timeout=RENDER_SECONDS)


def beside(path: Path, folder: Path) -> str:
    """The way from `folder`, which is how Kustomize wants it."""
    return os.path.relpath(path.resolve(), folder.resolve())


def placed(image: Image, reference: str) -> dict[str, str]:
    """Where a pod finds the image, in Kustomize's words."""
    name, _, digest = reference.partition("@")
    if digest:
        return {"name": image.repository, "newName": name, "digest": digest}
    repository, _, tag = name.rpartition(":")
    return {"name": image.repository, "newName": repository, "newTag": tag}


def patch(setting: Setting) -> dict[str, str]:
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": setting.config_map, "namespace": setting.namespace},
        "data": {setting.key: setting.value},
    }
    return {"patch": yaml.safe_dump(content)}


def objects(rendered: str) -> Objects:
    """The objects of a rendering, read by libyaml where it is there: ten times as fast."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [found for found in yaml.load_all(rendered, Loader=loader) if found]


def namespaces(rendered: str) -> str:
    """The part of a rendering that the Secrets need to be there."""
    found = [entry for entry in objects(rendered) if entry["kind"] == "Namespace"]
    return yaml.safe_dump_all(found)


def write_values(tree: Path, known: Mapping[str, Image], file: Path) -> Path:
    """`file` holds the values that images and plugins decide, on every cluster."""
    write_private(file, json.dumps(values(tree, known), indent=1, sort_keys=True))
    return file


def values(tree: Path, known: Mapping[str, Image]) -> dict[str, object]:
    """The chart's values that the lock of images and the plugins decide.

    A pod reads the plugins when it starts: other plugins make other pods.
    """
    airflow = known["airflow"]
    return {
        "airflowVersion": airflow.tag,
        "defaultAirflowRepository": airflow.repository,
        "defaultAirflowTag": airflow.tag,
        "airflowPodAnnotations": {"mlops-lab/plugins": images.content(tree / PLUGINS, {})},
    }
