"""What changed for a project from one version of the kit to the next, and what to do.

It imports next to nothing: the kit that replaces another one asks its successor, in a wheel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import ProjectError

if TYPE_CHECKING:
    from lab.project import Project


class Change(NamedTuple):
    """What a version of the kit changed for a project, and what its owner does about it."""

    version: str
    what: str
    todo: str


# The oldest first; a version that changed nothing for a project is not here.
CHANGES = (
    Change(
        "0.2.0",
        "a project is a repository of its own with a lab.toml, and uses the kit by its wheel",
        "lab init NAME, then bring dags/ and the tables of dags/data.toml (now of lab.toml) there",
    ),
)


def check_kit_version(project: Project, installed: str) -> None:
    """Raise ProjectError unless the project was made by a kit of the installed one's minor version.

    It says what has changed since, and what to do. The project's data stay as they are.
    """
    named = project.kit_version
    if read_minor(named) == read_minor(installed):
        return
    if read_minor(named) > read_minor(installed):
        raise ProjectError(
            f"this project needs kit {named}, and {installed} runs",
            f"in {project.root}: nox -s lab, which installs the one in kit/",
        )
    said = "; ".join(f"{each.version}: {each.what}" for each in list_changes(named, installed))
    since = f" Since then: {said}." if said else ""
    raise ProjectError(
        f"this project is one of kit {named}, and {installed} runs.{since} Its data stay",
        f"in {project.root}: lab init --upgrade",
    )


def list_changes(before: str, after: str) -> Iterator[Change]:
    """Yield what changed after one version, up to another one."""
    for each in CHANGES:
        if read_version(before) < read_version(each.version) <= read_version(after):
            yield each


def describe_changes(before: str, after: str) -> str:
    """Return what changed from one version to another, in lines; empty if nothing did."""
    return "\n".join(
        f"{each.version}  {each.what}\n       do: {each.todo}"
        for each in list_changes(before, after)
    )


def read_minor(version: str) -> tuple[int, ...]:
    return read_version(version)[:2]


def read_version(version: str) -> tuple[int, ...]:
    """Return the numbers of a version. Raises ProjectError when it is none."""
    try:
        return tuple(map(int, version.split(".")[:3]))
    except ValueError:
        raise ProjectError(
            f"{version!r} is no version of the kit", "write the one of kit/*.whl into lab.toml"
        ) from None
