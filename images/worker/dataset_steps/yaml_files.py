"""DVC's YAML files: read, and edited with all that a person has put into them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dvc.utils.serialize import (
    ParseError,
    dumps_yaml,
    load_yaml,
    parse_yaml,
    parse_yaml_for_update,
)

from dataset_steps.errors import StepError
from dataset_steps.files import atomic_write


class NotYaml(StepError):
    """The file can't be read as YAML."""


def read(path: Path) -> Any:
    """Return what the file holds. Raise FileNotFoundError, and NotYaml unless it is YAML."""
    if path.is_symlink():  # git would commit the link, and not the file that it leads to
        raise NotYaml(f"{path.name} is a symbolic link: commit the file itself in its place")
    try:
        return load_yaml(path)
    except (ParseError, IsADirectoryError) as error:
        raise NotYaml(f"{path.name} is not YAML: {error}") from error


def parse(text: str, name: str) -> Any:
    """Return what the text of a file of this name holds. Raise NotYaml unless it is YAML."""
    try:
        return parse_yaml(text, name)
    except ParseError as error:
        raise NotYaml(f"{name} is not YAML: {error}") from error


def read_for_update(path: Path) -> Any:
    """Return what the file holds, as DVC reads it to change it: with its comments and its order.

    Raise the errors of `read`.
    """
    read(path)
    text = path.read_text(encoding="utf-8")
    if all(line.startswith("#") for line in text.split("\n") if line.strip()):
        # DVC drops comments that stand before nothing.
        content = parse_yaml_for_update(f"{text}\n_:\n", path)
        del content["_"]
        return content
    return parse_yaml_for_update(text, path)


def write(path: Path, content: Any) -> None:
    """Replace the file by this content, as DVC writes it, or leave it as it was; keep its mode."""
    with atomic_write(path) as file:
        if path.exists():
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
        file.write(dumps_yaml(content).encode())
