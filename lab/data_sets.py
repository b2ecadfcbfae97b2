"""The rules of a data set's path, and the names that git and DVC keep for themselves."""

from __future__ import annotations

from pathlib import PurePosixPath

DATASET = "dataset"  # the main data set of the kit's own project
POINTER = ".dvc"  # how the name of a pointer ends
MOST_BYTES = 255 - len(POINTER)  # of a name: its pointer's is longer
TAKEN = {".git", ".dvc", ".hg", ".gitignore", ".dvcignore", "dvc.yaml", "dvc.lock"}


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
