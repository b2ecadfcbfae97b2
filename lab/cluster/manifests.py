"""The manifests of a lab: a Kustomize overlay with image tags and this lab's settings."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lab.cluster import cache, images, tools
from lab.cluster.images import Image
from lab.config import PLUGINS
from lab.files import write_private_file
from lab.project import OwnImage
from lab.shell import run

READER = Path("images", "worker", "dataset_steps")
READER_FILES = ("contract.py", "errors.py", "table.py")  # of the ConfigMap that images/worker makes
RENDER_SECONDS = 60
TEMPLATE, CONTAINER = "step", "base"  # the PodTemplate of a step, and its container
# By which Kubernetes' scheduler asks for a claim's volume once it knows the node of its first pod.
SELECTED_NODE = "volume.kubernetes.io/selected-node"
Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """One value of a ConfigMap that differs between labs."""

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
    """Render the overlay with the lock's images and return the YAML. Writes to `folder`.

    `components` are Kustomize components on top of the overlay; `moved` maps an image's key to its
    reference in another registry: `repository@sha256:…`, or `repository:tag`.

    The overlay in the tree can't contain tags that are hashes of an image's content, nor ports that
    are free on this machine. So it is wrapped in one more kustomization, instead of running
    `kustomize edit set image` in the tree itself.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    layer = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative_path(overlay, folder)],
        "components": [relative_path(path, folder) for path in components],
        "images": [kustomize_image(image, moved.get(image.key, image.name)) for image in known],
        "patches": [config_map_patch(setting) for setting in settings],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(layer), "utf-8")
    return run([tools.find("kubectl"), "kustomize", folder], timeout=RENDER_SECONDS)


def relative_path(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder`, as Kustomize requires."""
    return os.path.relpath(path.resolve(), folder.resolve())


def kustomize_image(image: Image, reference: str) -> dict[str, str]:
    """Return the entry of Kustomize's `images` that sets the image's reference."""
    declared = image.stands_for or image.repository
    name, _, digest = reference.partition("@")
    if digest:
        return {"name": declared, "newName": name, "digest": digest}
    repository, _, tag = name.rpartition(":")
    return {"name": declared, "newName": repository, "newTag": tag}


def config_map_patch(setting: Setting) -> dict[str, str]:
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": setting.config_map, "namespace": setting.namespace},
        "data": {setting.key: setting.value},
    }
    return {"patch": yaml.safe_dump(content)}


def parse_objects(rendered: str) -> Objects:
    """Parse rendered YAML, with libyaml if it is installed: ten times as fast."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [found for found in yaml.load_all(rendered, Loader=loader) if found]


def add_own_templates(
    rendered: str, declared: Iterable[OwnImage], references: Mapping[str, str]
) -> str:
    """Return the rendering with a PodTemplate for each image of one's own, of the image's name.

    It is the rendered one of a step, so it has all that an overlay has changed in that; with the
    image's reference, found by its name in `references`, and its own limits.
    """
    own = list(declared)
    if not own:
        return rendered
    step = next(entry for entry in parse_objects(rendered) if is_step_template(entry))
    added = [own_template(step, image, references[image.name]) for image in own]
    return f"{rendered}---\n{yaml.safe_dump_all(added)}"


def is_step_template(entry: Mapping[str, Any]) -> bool:
    return (entry["kind"], entry["metadata"]["name"]) == ("PodTemplate", TEMPLATE)


def own_template(step: Mapping[str, Any], image: OwnImage, reference: str) -> dict[str, Any]:
    """Return the PodTemplate of an image of one's own, made from that of a step."""
    made: dict[str, Any] = copy.deepcopy(dict(step))
    made["metadata"]["name"] = image.name
    containers = made["template"]["spec"]["containers"]
    container = next(one for one in containers if one["name"] == CONTAINER)
    container["image"] = reference
    limits = {"memory": image.memory, "cpu": image.cpu}
    for resource, limit in limits.items():
        if limit:
            set_limit(container["resources"], resource, limit)
    return made


def set_limit(resources: dict[str, dict[str, str]], resource: str, limit: str) -> None:
    """Set a limit; what is requested is lowered to it, since Kubernetes refuses more."""
    from kubernetes.utils.quantity import parse_quantity

    resources["limits"][resource] = limit
    requested = resources["requests"][resource]
    if parse_quantity(requested) > parse_quantity(limit):
        resources["requests"][resource] = limit


def select_namespaces(rendered: str) -> str:
    """Return the Namespaces of a rendering, which must exist before the Secrets."""
    found = [entry for entry in parse_objects(rendered) if entry["kind"] == "Namespace"]
    return yaml.safe_dump_all(found)


def select_claims(rendered: str, node: str) -> str:
    """Return the claims of a rendering, also those that a StatefulSet is about to make.

    Each asks for its volume on this node.
    """
    found = parse_objects(rendered)
    claims = [copy.deepcopy(e) for e in found if e["kind"] == "PersistentVolumeClaim"]
    claims += [made for e in found if e["kind"] == "StatefulSet" for made in made_claims(e)]
    for claim in claims:
        claim["metadata"].setdefault("annotations", {})[SELECTED_NODE] = node
    return yaml.safe_dump_all(claims)


def made_claims(stateful: Mapping[str, Any]) -> Objects:
    """Return the claims of a StatefulSet's first pod, as its controller would make them."""
    name, namespace = (stateful["metadata"][key] for key in ("name", "namespace"))
    labels = stateful["spec"]["selector"]["matchLabels"]
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": f"{template['metadata']['name']}-{name}-0",
                "namespace": namespace,
                "labels": labels,
            },
            "spec": template["spec"],
        }
        for template in stateful["spec"].get("volumeClaimTemplates", ())
    ]


def write_values(
    kit: Path, known: Mapping[str, Image], file: Path, reference: str | None = None
) -> Path:
    """Write the values that depend on images and plugins, on any cluster, to `file`."""
    values = chart_values(kit, known, reference)
    write_private_file(file, json.dumps(values, indent=1, sort_keys=True))
    return file


def chart_values(
    kit: Path, known: Mapping[str, Image], reference: str | None = None
) -> dict[str, object]:
    """Return the chart's values that depend on the lock of images and on the plugins.

    `reference` is that of Airflow's image, by default its name. The chart and Airflow itself write
    references as `repository:tag`: of a digest, the second half is in the tag's place.

    A pod reads the plugins, and the reader of CSV beside them, when it starts: an annotation
    replaces the pods when they change.
    """
    airflow = known["airflow"]
    repository, _, tag = (reference or airflow.name).rpartition(":")
    reader = {name: cache.file_sha256(kit / READER / name) for name in READER_FILES}
    return {
        "airflowVersion": airflow.tag,
        "defaultAirflowRepository": repository,
        "defaultAirflowTag": tag,
        "airflowPodAnnotations": {"mlops-lab/plugins": images.content_tag(kit / PLUGINS, reader)},
    }
