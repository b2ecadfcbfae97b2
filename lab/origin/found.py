"""What an origin has: its history, its data sets, its objects, and those that are missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lab.data_sets import POINTER, find_fault
from lab.errors import LabError
from lab.files import write_private_file

FOLDER = ".origin"  # of the project; git ignores it
FILE = "missing.json"
LONGEST = 40  # characters of a data set's name
MD5 = re.compile("[0-9a-f]{32}")
LISTS = ("branches", "tags", "missing", "unread", "remotes", "named")


@dataclass(frozen=True)
class Missing:
    """An object that no remote of the origin has."""

    md5: str  # a folder's ends in .dir
    commits: Mapping[str, tuple[str, ...]]  # that brought the version, by path
    why: str

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Missing:
        commits = {path: tuple(names) for path, names in said["commits"].items()}
        return cls(said["md5"], commits, said["why"])

    def __str__(self) -> str:
        where = (f"{path} at {names[-1][:12]}" for path, names in self.commits.items())
        return f"{self.md5} of {', '.join(where)}: {self.why}"


@dataclass(frozen=True)
class Unread:
    """A file of DVC that says nothing, at the commit that brought it."""

    path: str
    commit: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} at {self.commit[:12]}: {self.why}"


@dataclass(frozen=True)
class Origin:
    """What was taken from an origin to the folder of a project."""

    url: str
    branch: str  # its default one
    commits: int
    branches: tuple[str, ...]
    tags: tuple[str, ...]
    data: Mapping[str, str]  # paths of data sets, by the name that each may have in lab.toml
    refused: Mapping[str, str]  # why a path can't be a data set's
    objects: int
    size: int  # bytes
    missing: tuple[Missing, ...]
    unread: tuple[Unread, ...]
    remotes: tuple[str, ...]  # URLs, of all commits
    named: tuple[str, ...]  # remotes that an output names

    def describe(self) -> list[str]:
        """Return what a person is told of it, in lines."""
        lines = [
            f"{self.commits} commits",
            f"branches: {', '.join(self.branches)}",
            f"tags: {', '.join(self.tags) or 'none'}",
            f"{self.objects} objects, {self.size} bytes",
        ]
        lines += [f"data set {name}: {path}" for name, path in self.data.items()]
        lines += [f"no data set: {path} {why}" for path, why in self.refused.items()]
        lines += [f"missing: {each}" for each in self.missing]
        lines += [f"not read: {each}" for each in self.unread]
        return lines


def write_found(folder: Path, origin: Origin) -> None:
    """Write what was found to the folder of the origin: it is whole then."""
    write_private_file(folder / FILE, json.dumps(asdict(origin), indent=2) + "\n")


def read_found(folder: Path) -> Origin:
    """Return what was found, from the origin's folder. Raises LabError when it is not whole."""
    try:
        said = json.loads((folder / FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise not_whole_error(folder) from None
    said["missing"] = map(Missing.from_json, said["missing"])
    said["unread"] = (Unread(**each) for each in said["unread"])
    lists = {name: tuple(said[name]) for name in LISTS}
    return Origin(**{**said, **lists})


def not_whole_error(folder: Path) -> LabError:
    return LabError(f"{folder} has not all of the origin", "lab fetch completes it")


# --- Its data sets --------------------------------------------------------------------------------


def sort_data_sets(newest: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the paths of pointers that can be data sets, by name, and why the others can't.

    `newest` is what DVC says of the pointers of the newest commit.
    """
    faults = {each["path"].removesuffix(POINTER): find_reason(each) for each in newest}
    taken: dict[str, str] = {}
    for path in sorted(path for path, why in faults.items() if not why):
        taken[choose_name(path, taken)] = path
    return taken, {path: why for path, why in sorted(faults.items()) if why}


def find_reason(pointer: Mapping[str, Any]) -> str | None:
    """Return why a pointer can't be a data set's, or None."""
    if pointer["why"]:
        return f"has a pointer that DVC refuses: {pointer['why']}"
    if len(outputs := pointer["outputs"]) != 1:
        return f"has a pointer with {len(outputs)} outputs: give each one of its own, by dvc add"
    path = pointer["path"].removesuffix(POINTER)
    return find_reason_of_output(path, *outputs) or find_fault(PurePosixPath(path))


def find_reason_of_output(path: str, output: Mapping[str, Any]) -> str | None:
    """Return why the only output of a pointer can't be the data set at a path, or None."""
    md5 = str(output["md5"]).removesuffix(".dir")
    reasons = {
        "is kept by git or outside of the repository, and not by DVC": not output["cached"],
        "is imported from another repository: dvc remove it, then dvc add a copy": (
            output["imported"]
        ),
        f"has a pointer about {output['path']}: correct its `path` and its `wdir`": (
            output["path"] != path
        ),
        "has a pointer without an MD5 of its own: dvc add the data again": not MD5.fullmatch(md5),
        "has a pointer without a size, of an old DVC: dvc add the data again": (
            output["size"] is None
        ),
    }
    return next((why for why, is_so in reasons.items() if is_so), None)


def choose_name(path: str, taken: Iterable[str]) -> str:
    """Return a name for a data set that lab.toml takes, and that no other one has."""
    stem = PurePosixPath(path).name.partition(".")[0] or PurePosixPath(path).name
    plain = re.sub("[^a-z0-9]+", "_", stem.lower()).strip("_")
    name = (plain if re.match("[a-z]", plain) else f"data_{plain}".rstrip("_"))[:LONGEST]
    number, unique = 1, name
    while unique in taken:
        number += 1
        ending = f"_{number}"
        unique = name[: LONGEST - len(ending)] + ending
    return unique
