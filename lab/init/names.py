"""What a project may be called: its name is that of images, of a cluster and of Python modules."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from pathlib import Path

from lab.config import DISTRIBUTION, KIT
from lab.errors import ProjectError
from lab.project import NAME

LONGEST = 30
STEPS = ("dataset", "model", "reading")  # the kit's packages `dataset_steps` …


def require_name(path: Path) -> None:
    """Raise ProjectError, with the nearest name that is valid, unless a project can have this one.

    It is the last part of the path.
    """
    name, other = path.name, path.with_name(suggest_name(path.name))
    fix = f"lab init {shlex.quote(os.path.relpath(other))}"
    if not NAME.fullmatch(name):
        raise ProjectError(
            f"{name!r} is no name that Kubernetes can have: a letter, then letters, digits and -, "
            f"in lower case, {LONGEST} at most",
            fix,
        )
    if is_taken(name):
        raise ProjectError(f"the kit has something called {name} itself", fix)


def suggest_name(name: str) -> str:
    """Return the valid name that is nearest to this one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    found = re.sub(r"[^a-z0-9]+", "-", plain).lstrip("-0123456789")[:LONGEST].rstrip("-")
    found = found or "my-project"
    return f"my-{found}"[:LONGEST].rstrip("-") if is_taken(found) else found


def is_taken(name: str) -> bool:
    """Return whether the kit has packages, images or a pipeline of this name."""
    pipelines = {file.stem for file in (KIT / "dags").glob("*.py")}
    return name in (DISTRIBUTION, *STEPS) or f"{as_identifier(name)}_pipeline" in pipelines


def as_identifier(name: str) -> str:
    """Return the name as Python's modules have it."""
    return name.replace("-", "_")
