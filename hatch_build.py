"""Adds the kit's own resources to its wheel, as `lab/kit/`: byte for byte what the checkout has."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("manifests", "images", "eks", "requirements", "dags")
FILES = ("lab.toml", "README.md", "CHANGELOG.md")
HIDDEN = {".dockerignore", ".airflowignore"}  # of hidden files these are a part of the kit


class Resources(BuildHookInterface):  # type: ignore[type-arg,unused-ignore]
    """The hook that hatchling calls before and after it builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the resources to a wheel; what is installed editable finds them in the checkout.

        They are copied first: hatchling puts a file of the checkout to one place only, and the
        steps are a package of the wheel, too.
        """
        if version == "standard":
            self.copies = tempfile.TemporaryDirectory()
            tree, folder = Path(self.root), Path(self.copies.name)
            for name in list_resources(tree):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tree / name, folder / name)
                build_data["force_include"][str(folder / name)] = f"lab/kit/{name}"

    def finalize(self, version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """Remove the copies."""
        if version == "standard":
            self.copies.cleanup()


def list_resources(tree: Path) -> Iterator[str]:
    """Yield the path of each resource in the tree, in a fixed order."""
    for folder in FOLDERS:
        for file in sorted((tree / folder).rglob("*")):
            path = file.relative_to(tree)
            if file.is_file() and not is_left_out(path):
                yield path.as_posix()
    yield from FILES


def is_left_out(path: Path) -> bool:
    """Return whether a file is left out: a hidden one, a cache, or code that is a package."""
    hidden = any(part.startswith(".") and part not in HIDDEN for part in path.parts)
    packaged = path.parts[0] == "eks" and path.suffix == ".py"
    return hidden or packaged or "__pycache__" in path.parts
