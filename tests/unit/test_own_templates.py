"""The PodTemplates of a project's own images, made from the rendered one of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cluster import manifests
from lab.config import KIT
from lab.project import OwnImage

STEP = (KIT / "manifests" / "base" / "templates" / "step" / "template.yaml").read_text("utf-8")
RENDERED = f"kind: ConfigMap\nmetadata:\n  name: step\n---\n{STEP}"


def add(*limits: str | None, name: str = "clean") -> list[dict[str, Any]]:
    """Return the objects of a rendering to which an image with these limits was added."""
    memory, cpu = (*limits, None, None)[:2]
    image = OwnImage(name, Path("images"), None, memory, cpu)
    found = manifests.add_own_templates(RENDERED, [image], {name: "churn/clean:0"})
    return manifests.parse_objects(found)


def test_it_is_the_step_s_with_another_name_and_image() -> None:
    first, step, made = add()
    assert [first, step] == manifests.parse_objects(RENDERED)
    (container,) = made["template"]["spec"]["containers"]
    assert (made["metadata"]["name"], container["image"]) == ("clean", "churn/clean:0")
    made["metadata"]["name"], container["image"] = "step", "mlops-lab/worker"
    assert made == step


@pytest.mark.parametrize(
    ("memory", "cpu", "limits", "requests"),
    [
        ("1Gi", "1.5", ("1Gi", "1.5"), ("192Mi", "50m")),
        ("128Mi", None, ("128Mi", "2"), ("128Mi", "50m")),
        (None, "20m", ("512Mi", "20m"), ("192Mi", "20m")),
    ],
)
def test_no_more_is_requested_than_its_limits_allow(
    memory: str | None, cpu: str | None, limits: tuple[str, str], requests: tuple[str, str]
) -> None:
    (container,) = add(memory, cpu)[-1]["template"]["spec"]["containers"]
    found = container["resources"]
    assert (found["limits"]["memory"], found["limits"]["cpu"]) == limits
    assert (found["requests"]["memory"], found["requests"]["cpu"]) == requests


def test_a_project_without_images_of_its_own_gets_the_rendering_as_it_is() -> None:
    assert manifests.add_own_templates(RENDERED, [], {}) == RENDERED
    assert len(list(yaml.safe_load_all(RENDERED))) == 2
