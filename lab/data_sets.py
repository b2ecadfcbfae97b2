"""The data sets that the checkout declares, beside the lab's own, and the paths that they may have.

The pipelines read the same file by their own code: a proof has to find what they do wrong.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lab.errors import LabError

FILE = "data.toml"  # beside the DAGs
DATASET = "dataset"  # the lab's own, which is not declared
NAME = re.compile("[a-z][a-z0-9_]{0,39}")
POINTER = ".dvc"  # how the name of a pointer ends
MOST_BYTES = 255 - len(POINTER)  # of a name: its pointer's is longer
TAKEN = {".git", ".dvc", ".hg", ".gitignore", ".dvcignore", "dvc.yaml", "dvc.lock"}
FIX = f"correct dags/{FILE}: docs/reference.md says what it may hold"


def read_data_sets(folder: Path, dataset: str) -> dict[str, str]:
    """Return the path of each data set that the folder of DAGs declares, by its name.

    `dataset` is the path of the lab's own. Raises LabError when the file can't be right.
    """
    try:
        content = tomllib.loads((folder / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise data_sets_error(f"it can't be read ({error.strerror})") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise data_sets_error(f"it is no TOML: {' '.join(str(error).split())}") from error
    tables = content.pop("data", {})
    if content or not isinstance(tables, dict):
        raise data_sets_error("a data set is written as [data.NAME], and there is nothing else")
    found = {name: read_path(name, table) for name, table in tables.items()}
    refuse_shared_paths({DATASET: dataset, **found})
    return found


def data_sets_error(why: str) -> LabError:
    return LabError(f"dags/{FILE}: {why}", FIX)


def read_path(name: str, table: Any) -> str:
    """Return the path that a declaration gives. Raises LabError when it can't be right."""
    if name == DATASET:
        raise data_sets_error(f"{DATASET} is the lab's own data set; `lab up --dataset` names it")
    if not NAME.fullmatch(name):
        raise data_sets_error(
            f"{name!r} is no name of a data set: a letter, then letters, digits and _,"
            " in lower case, 40 at most"
        )
    if not isinstance(table, dict) or table.keys() != {"path"} or type(table["path"]) is not str:
        raise data_sets_error(f'[data.{name}] has `path = "…"`, and nothing else')
    path = PurePosixPath(table["path"])
    if why := find_fault(path):
        raise data_sets_error(f"the path of {name}, {table['path']!r}, {why}")
    return str(path)


def find_fault(path: PurePosixPath) -> str | None:
    """Return why a path of the datasets repository can't be a data set's, or None."""
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return "is none inside the repository"
    return next(filter(None, map(find_fault_of_name, path.parts)), None)


def find_fault_of_name(name: str) -> str | None:
    """Return why neither git nor DVC could keep a file of this name, or None."""
    if name.casefold() in TAKEN or name.endswith(POINTER):
        return "has a name that git and DVC keep for themselves"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if size > MOST_BYTES:
        return f"has a name of {size} bytes; with its pointer's ending there is room for 251"
    if not name.isprintable() or name != name.rstrip() or ":" in name or "\\" in name:
        return "has a control character, a colon, a backslash, or a blank at the end, in its name"
    return None


def refuse_shared_paths(paths: Mapping[str, str]) -> None:
    """Raise LabError when two data sets are at one path, or one is inside another."""
    ordered = sorted((PurePosixPath(path).parts, name) for name, path in paths.items())
    for (one, first), (other, second) in itertools.pairwise(ordered):
        if other[: len(one)] == one:
            where = f"{paths[first]} and {paths[second]}"
            raise data_sets_error(f"{first} and {second} share files: they are at {where}")
