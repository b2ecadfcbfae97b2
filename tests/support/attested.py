"""A copy of what is promoted, for tests to change, and an attestation of it."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eks import attestation, registry
from eks.attestation import Statement
from lab.cluster import images
from lab.cluster.images import Image
from lab.config import KIT, Config
from lab.delivery import bundle
from lab.model import Proof
from lab.project import FILE

if TYPE_CHECKING:
    import pytest

LIBRARY = bundle.LIBRARY.relative_to(KIT)
PARTS = ("manifests", "dags", "images", "eks", LIBRARY)
PROOF = Proof(True, "c" * 40, "d" * 32, 10, "s3://lab/store/x", "manual__1", "v1", 2)
TESTS = ["tests/e2e/test_dataset_pipeline.py"]
PREDICATE = {
    "when": "2026-01-01T00:00:00+00:00",
    "commit": "e" * 40,
    "dirty": False,
    "tests": TESTS,
    "variations": True,
    "proof": {"ok": True},
}


def copy_tree(folder: Path) -> Config:
    """Copy what this tree promotes into a tree of its own; return a configuration of that tree."""
    tree = folder / "tree"
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(KIT / part, tree / part, ignore=ignored)
    shutil.copy(KIT / FILE, tree)
    return replace(Config.from_environment({}), home=folder / "home", root=tree, kit=tree)


def use_library(config: Config, patch: pytest.MonkeyPatch) -> Config:
    """Have the DAG library of the copy delivered, so that a test may change it; return `config`."""
    patch.setattr(bundle, "LIBRARY", config.kit / LIBRARY)
    return config


def with_images(config: Config, path: Path) -> Config:
    """Return the configuration with an attestation at `path` that says which images kind ran."""
    attestation.write(path, Statement({}, {**PREDICATE, "images": list_images(config)}))
    return replace(config, attestation=path)


def list_images(config: Config) -> list[dict[str, object]]:
    """List the images that kind ran, as a statement does: all of them from registries, or built."""
    known = images.read_lock(config)
    return [describe_image(known[key]) for key in images.list_wanted(known)]


def describe_image(image: Image) -> dict[str, object]:
    known = id_on_kind(image.name)
    digests = [] if image.is_built else [image.digest or known]
    return {"name": image.name, "id": known, "digests": digests}


def id_on_kind(name: str) -> str:
    """Return the ID by which these attestations name an image."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def tag_of(image: Image, chosen: str | None = None) -> str:
    """Return the image's tag in the registry: by default, of the build that kind ran."""
    return registry.tag(image, chosen or id_on_kind(image.name))


def make_statement(config: Config) -> Statement:
    """Return the statement that a green test on kind would make about this tree."""
    told = {**PREDICATE, "images": list_images(config)}
    return Statement(attestation.compute_digests(config), told)
