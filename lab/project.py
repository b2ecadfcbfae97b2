"""A project: what its lab.toml declares. Every path in it is relative to the folder of lab.toml.

The pipelines are told of the data sets by the kit, and check them by their own code: a proof has to
find what they do wrong.
"""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from lab.data_sets import find_fault
from lab.errors import ProjectError

FILE = "lab.toml"
KIT_DATA = "kit:employees"  # in place of a path: the table that the kit generates
# A label of DNS (RFC 1123) that begins with a letter, short enough for what is named after it.
NAME = re.compile("[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
DATA_NAME = re.compile("[a-z][a-z0-9_]{0,39}")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i|m)?")
# The keys of each table, and the type of each value.
KEYS: Mapping[str, Mapping[str, type]] = {
    "kit": {"version": str, "sha256": str},
    "lab": {"name": str, "dag": str, "samples": bool},
    "data": {"path": str, "first": str},
    "images": {"folder": str, "requirements": str, "memory": str, "cpu": str},
    "origin": {"url": str},
}
# Names of the kit's own PodTemplates, and of what its lock of images has.
TEMPLATES = {"step", "model", "training"}
IMAGES = {
    *("node", "postgresql", "gitea", "minio", "minio-source", "pod-identity"),
    *("airflow", "worker", "trainer", "go", "python"),
}


@dataclass(frozen=True)
class Declaration:
    """A data set: its path in the datasets repository, and where its first version comes from."""

    path: str
    first: str | None = None


@dataclass(frozen=True)
class OwnImage:
    """An image of one's own: a folder with what it is built from, or a file of requirements."""

    name: str
    folder: Path | None
    requirements: Path | None
    memory: str | None = None
    cpu: str | None = None


@dataclass(frozen=True)
class Project:
    """What a lab.toml declares. The first data set is the main one."""

    root: Path
    name: str
    dag: str  # what `lab` runs and proves
    samples: bool
    kit_version: str
    wheel_sha256: str | None
    data: Mapping[str, Declaration]
    images: Mapping[str, OwnImage]
    origin: str | None = None

    @property
    def dags(self) -> Path:
        return self.root / "dags"

    @property
    def main(self) -> str:
        """The name of the main data set: the one whose first version `--dataset` replaces."""
        return next(iter(self.data))

    @cached_property
    def paths(self) -> dict[str, str]:
        """The path of each data set in the datasets repository, by name."""
        return {name: each.path for name, each in self.data.items()}

    def name_other_paths(self, main_path: str) -> dict[str, str]:
        """Return the paths of all data sets but the main one, whose path a lab has chosen.

        Raises ProjectError when two of them share files.
        """
        refuse_shared_paths({**self.paths, self.main: main_path})
        return {name: path for name, path in self.paths.items() if name != self.main}


def refuse(what: str) -> NoReturn:
    raise ProjectError(f"{FILE}: {what}", f"correct it; there are {describe_tables()}")


def describe_tables() -> str:
    """Return in one line which tables a lab.toml may have, and their keys."""
    named = {"data": "[data.NAME]", "images": "[images.NAME]"}
    return "; ".join(
        f"{named.get(name, f'[{name}]')} {', '.join(keys)}" for name, keys in KEYS.items()
    )


def read_project(root: Path, samples: Path | None = None) -> Project:
    """Return what the lab.toml in `root` declares. Raises ProjectError when it can't be right.

    `samples` is the folder of the kit's own lab.toml: with `samples = true` its data sets are
    declared, too.
    """
    content = read_tables(root)
    kit, lab = (check_table(content.get(name, {}), name) for name in ("kit", "lab"))
    data = {name: read_data_set(name, table) for name, table in content.get("data", {}).items()}
    images = {n: read_image(root, n, table) for n, table in content.get("images", {}).items()}
    wants_samples = lab.get("samples", False)
    if wants_samples and samples and samples != root:
        data = add_samples(data, read_project(samples).data)
    if not data:
        refuse('it declares no data set: write [data.NAME] and `path = "…"`')
    paths = {name: each.path for name, each in data.items()}
    refuse_shared_paths(paths)
    return Project(
        root=root,
        name=require_name(require(lab, "lab", "name")),
        dag=require(lab, "lab", "dag"),
        samples=wants_samples,
        kit_version=require(kit, "kit", "version"),
        wheel_sha256=kit.get("sha256"),
        data=data,
        images=images,
        origin=check_table(content.get("origin", {}), "origin").get("url"),
    )


def read_tables(root: Path) -> dict[str, Any]:
    """Return the tables of a lab.toml. Raises ProjectError when it is no TOML, or has others."""
    try:
        content = tomllib.loads((root / FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise ProjectError(
            f"there is no {FILE} in {root}",
            "make a project: lab init NAME; or name its folder: LAB_PROJECT=/path/to/folder",
        ) from None
    except OSError as error:
        refuse(f"it can't be read ({error.strerror})")
    except ValueError as error:  # no TOML, or no UTF-8
        refuse(f"it is no TOML: {' '.join(str(error).split())}")
    refuse_unknown(content, KEYS, "it has a table", "[{}]")
    for name in KEYS:
        if not isinstance(content.get(name, {}), dict):
            refuse(f"{name} is a table: [{name}]")
    return content


def refuse_unknown(found: Collection[str], known: Collection[str], what: str, form: str) -> None:
    """Raise ProjectError for the first key that is not known, and name the nearest one that is."""
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            refuse(f"{what} {form.format(key)}, which nothing reads; is it {form.format(near)}?")


def check_table(table: Any, kind: str, name: str = "") -> dict[str, Any]:
    """Return a table of lab.toml. Raises ProjectError for a key that it can't have, or its type."""
    where, keys = f"[{kind}.{name}]" if name else f"[{kind}]", KEYS[kind]
    if not isinstance(table, dict):
        refuse(f"{where} is a table")
    refuse_unknown(table, keys, f"{where} has", "`{}`")
    for key, value in table.items():
        if type(value) is not keys[key] or value == "":
            kind_of_value = "true or false" if keys[key] is bool else "a text"
            refuse(f"{where} {key} has to be {kind_of_value}")
    return table


def require(table: Mapping[str, Any], name: str, key: str) -> str:
    """Return a value that a table must have. Raises ProjectError without it."""
    if key not in table:
        refuse(f"[{name}] lacks `{key}`")
    return str(table[key])


def require_name(name: str) -> str:
    """Return the name of a project. Raises ProjectError unless Kubernetes can have it."""
    if not NAME.fullmatch(name):
        refuse(
            f"{name!r} is no name that Kubernetes can have: a letter, then letters, digits and -,"
            " in lower case, 30 at most"
        )
    return name


# --- Data sets ------------------------------------------------------------------------------------


def read_data_set(name: str, table: Any) -> Declaration:
    """Return what [data.NAME] declares. Raises ProjectError when it can't be right."""
    if not DATA_NAME.fullmatch(name):
        refuse(
            f"{name!r} is no name of a data set: a letter, then letters, digits and _,"
            " in lower case, 40 at most"
        )
    if not isinstance(table, dict):
        refuse(f'data.{name} is a table: [data.{name}], with `path = "…"`')
    checked = check_table(table, "data", name)
    path = PurePosixPath(require(checked, f"data.{name}", "path"))
    if why := find_fault(path):
        refuse(f"the path of {name}, {checked['path']!r}, {why}")
    first = checked.get("first")
    if first and first.startswith("kit:") and first != KIT_DATA:
        refuse(f"[data.{name}] first = {first!r}: of the kit there is only {KIT_DATA!r}")
    return Declaration(str(path), first)


def refuse_shared_paths(paths: Mapping[str, str]) -> None:
    """Raise ProjectError when two data sets are at one path, or one is inside another."""
    ordered = sorted((PurePosixPath(path).parts, name) for name, path in paths.items())
    for (one, first), (other, second) in itertools.pairwise(ordered):
        if other[: len(one)] == one:
            where = f"{paths[first]} and {paths[second]}"
            refuse(f"{first} and {second} share files: they are at {where}")


def add_samples(
    data: Mapping[str, Declaration], samples: Mapping[str, Declaration]
) -> dict[str, Declaration]:
    """Return the project's data sets and those of the samples. Raises ProjectError for a clash."""
    for name in samples.keys() & data.keys():
        if data[name].path != samples[name].path:
            refuse(
                f"the samples have a data set {name}, too, at {samples[name].path}: call yours"
                " otherwise, or leave `samples = true` out"
            )
    if not data:
        refuse('it declares no data set of its own: write [data.NAME] and `path = "…"`')
    return {**data, **{name: each for name, each in samples.items() if name not in data}}


# --- Images ---------------------------------------------------------------------------------------


def read_image(root: Path, name: str, table: Any) -> OwnImage:
    """Return what [images.NAME] declares. Raises ProjectError when it can't be right."""
    checked = check_table(table, "images", name)
    if not NAME.fullmatch(name):
        refuse(
            f"{name!r} is no name of an image: a letter, then letters, digits and -, in lower"
            " case, 30 at most"
        )
    if name in TEMPLATES | IMAGES:
        refuse(f"[images.{name}] has the name of one of the kit's own: call it otherwise")
    given = {key: root / checked[key] for key in ("folder", "requirements") if key in checked}
    if len(given) != 1:
        refuse(f"[images.{name}] has either `folder` or `requirements`")
    ((key, path),) = given.items()
    if not (path.is_dir() if key == "folder" else path.is_file()):
        refuse(f"[images.{name}] {key} = {checked[key]!r}: there is no such {key_word(key)}")
    for limit in ("memory", "cpu"):
        if limit in checked and not QUANTITY.fullmatch(checked[limit]):
            refuse(f"[images.{name}] {limit} = {checked[limit]!r} is no amount: as in 512Mi, 1.5")
    limits = {limit: checked.get(limit) for limit in ("memory", "cpu")}
    return OwnImage(name, given.get("folder"), given.get("requirements"), **limits)


def key_word(key: str) -> str:
    return "folder" if key == "folder" else "file"


# --- Where a project is ---------------------------------------------------------------------------


def find_root(given: str | None, start: Path, checkout: Path | None) -> Path:
    """Return the folder of the project: the given one, else the nearest at or above `start`.

    Else it is the kit's `checkout`, which has a project of its own. Raises ProjectError where there
    is none.
    """
    if given:
        root = Path(given).expanduser().absolute()
        if not (root / FILE).is_file():
            raise ProjectError(f"LAB_PROJECT={given} has no {FILE}", "name the folder that has one")
        return root
    places = [start, *start.parents, *([checkout] if checkout else [])]
    for place in places:
        if (place / FILE).is_file():
            return place
    raise ProjectError(
        f"there is no {FILE} here or above",
        "go to the folder of a project, or make one: lab init NAME",
    )
