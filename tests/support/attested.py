"""A copy of what is promoted, for tests to change, and an attestation of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eks import attestation
from eks.attestation import Statement
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


def make_statement(config: Config) -> Statement:
    """Return the statement that a green test on kind would make about this tree."""
    return Statement(attestation.compute_digests(config), PREDICATE)
