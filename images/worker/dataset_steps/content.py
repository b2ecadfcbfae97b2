"""What a place holds, a file or a directory, measured as DVC measures it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dvc_data.hashfile.tree import Tree
from dvc_objects.fs.utils import is_exec

from dataset_steps.errors import StepError
from dataset_steps.files import md5_of, md5_of_blocks, read_blocks
from dataset_steps.pointer import DIRECTORY, Pointer

# Returns the names of a folder's folders and files that DVC does not ignore.
Keep = Callable[[str, list[str], list[str]], tuple[list[str], list[str]]]

THREADS = 4
BATCH = 500  # files that a thread hashes before it reports, at most
LISTED = 5000  # files that DVC lists at once
OF_DVC = (".dvcignore", "dvc.yaml")
SHOWN = 5  # names in a line


@dataclass(frozen=True, slots=True)
class File:
    """One file of a directory."""

    relpath: str  # with slashes, as DVC lists it
    md5: str
    size: int  # bytes


@dataclass(frozen=True)
class Content:
    """What a data set is now: its pointer, and of a directory its files and their listing."""

    pointer: Pointer
    files: tuple[File, ...] = ()
    listing: bytes = b""  # DVC's `.dir` object


@dataclass
class Found:
    """What was found in a directory; each name is relative to it."""

    files: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)  # folders
    ignored: list[str] = field(default_factory=list)


def measure(path: str, place: Path, keep: Keep, remote: str | None = None) -> Content:
    """Return what is at `place`, for the data set at `path` of the repository.

    Print what DVC leaves out. Raise StepError when nothing is there, or what DVC can't keep.
    """
    if place.is_dir() and not place.is_symlink():
        return measure_directory(path, place, keep, remote)
    if not os.path.lexists(place):
        raise StepError(
            f"there is nothing at {place}: the step has deleted {path}, or wrote it elsewhere. Its "
            "environment names the place, as DATA_ and the data set's name"
        )
    require_plain(path, is_link=place.is_symlink(), is_plain=place.is_file())
    status = place.stat()
    executable = is_exec(status.st_mode)
    return Content(Pointer(md5_of(place), status.st_size, remote=remote, executable=executable))


def measure_directory(path: str, place: Path, keep: Keep, remote: str | None) -> Content:
    """Return what the directory holds. Print what DVC leaves out. Raise StepError."""
    found = find_files(path, place, keep)
    if found.ignored:
        print(f"left out of {path}, as .dvcignore says: {shorten(found.ignored)}")
    if found.empty:
        print(f"left out of {path}, since DVC keeps no empty directory: {shorten(found.empty)}")
    if not found.files:
        raise StepError(
            f"the directory {path} holds no file, and DVC keeps no empty one: did the step write "
            "elsewhere? Its environment names the place, as DATA_ and the data set's name"
        )
    files = tuple(hash_files(place, sorted(found.files)))
    listing = list_files(files)
    md5, size = md5_of_blocks([listing]) + DIRECTORY, sum(file.size for file in files)
    return Content(Pointer(md5, size, remote=remote, nfiles=len(files)), files, listing)


def find_files(path: str, place: Path, keep: Keep) -> Found:
    """List the files of a directory that DVC keeps. Raise StepError for what it can't keep."""
    found, waiting = Found(), [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(place / folder) as entries:
            there = {entry.name: entry for entry in entries}
        folders = [name for name, entry in there.items() if entry.is_dir()]
        names = keep(folder, folders, sorted(there.keys() - set(folders)))
        within = f"{folder}/" if folder else ""
        kept = {name: within + name for name in itertools.chain(*names)}
        found.ignored += (within + name for name in there.keys() - kept.keys())
        for name, relative in kept.items():
            require_keepable(path, relative, there[name])
            (waiting if there[name].is_dir() else found.files).append(relative)
        if folder and not there:
            found.empty.append(folder)
    return found


def require_keepable(path: str, relative: str, entry: os.DirEntry[str]) -> None:
    """Raise StepError where DVC could not bring this entry of a directory back."""
    what = f"{path}/{relative}"
    is_plain = entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
    require_plain(what, is_link=entry.is_symlink(), is_plain=is_plain)
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise StepError(
            f"the name {show(what)} is not UTF-8, and DVC lists names as text: rename it"
        ) from None
    if entry.name in OF_DVC or (entry.name.endswith(".dvc") and entry.is_file()):
        raise StepError(
            f"{show(what)} is inside of a data set, and DVC would take it for a file of its own "
            "in each clone: give it another name"
        )


def require_plain(what: str, *, is_link: bool, is_plain: bool) -> None:
    """Raise StepError for a symbolic link, and for what is neither a file nor a directory."""
    if is_link:
        raise StepError(
            f"{show(what)} is a symbolic link, which DVC does not keep: put what it leads to in "
            "its place"
        )
    if not is_plain:
        raise StepError(f"{show(what)} is neither a file nor a directory: take it away")


def hash_files(place: Path, names: list[str]) -> Iterator[File]:
    """Yield each file with its MD5 and size, in the order of `names`; several are read at once."""
    share = max(1, min(BATCH, len(names) // (4 * THREADS)))  # few files may be large: one by one

    def hash_batch(start: int) -> list[File]:
        return [hash_file(place, name) for name in names[start : start + share]]

    with ThreadPoolExecutor(THREADS) as pool:
        yield from itertools.chain.from_iterable(pool.map(hash_batch, range(0, len(names), share)))


def hash_file(place: Path, name: str) -> File:
    """Return one file of a directory, hashed."""
    with (place / name).open("rb") as file:
        md5 = md5_of_blocks(read_blocks(file))
        return File(name, md5, file.tell())


def list_files(files: Sequence[File]) -> bytes:
    """Return the listing of a directory, as DVC writes it; the files are sorted by their names.

    DVC's own class writes it part by part: what it holds for each file is many times the listing.
    """
    parts = (files[start : start + LISTED] for start in range(0, len(files), LISTED))
    return b"[" + b", ".join(list_part(part)[1:-1] for part in parts) + b"]"


def list_part(files: Sequence[File]) -> bytes:
    """Return the listing of a directory that has only these files."""
    rows = [{"md5": file.md5, Tree.PARAM_RELPATH: file.relpath} for file in files]
    listing: bytes = Tree.from_list(rows, hash_name="md5").as_bytes()
    return listing


def shorten(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(show(name) for name in sorted(names)[:SHOWN]) + more


def show(name: str) -> str:
    """Return the name as it can be printed in a line."""
    return name if name.isprintable() else ascii(name)
