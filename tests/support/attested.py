"""A copy of what is promoted, for tests to change, and an attestation of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from eks import attestation
from eks.attestation import Statement
from lab.config import TREE, Config
from lab.model import Proof

PARTS = ("manifests", "dags", "images", "eks")
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
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(TREE / part, folder / "tree" / part, ignore=ignored)
    return replace(Config.from_environment({}), home=folder / "home", tree=folder / "tree")


def make_statement(config: Config) -> Statement:
    """Return the statement that a green test on kind would make about this tree."""
    return Statement(attestation.compute_digests(config), PREDICATE)
