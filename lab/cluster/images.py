"""The images of a lab: named in one lock, held by Docker, kept as archives that load fast."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cluster import cache, docker
from lab.config import TREE

LOCK = Path("images", "lock.toml")
MINUTES = {"minio": ", once: about four minutes"}
CONTENT = 16  # hexadecimal digits of a built image's tag
# What the node runs, in the order in which it is needed.
STORES = ("postgresql", "minio", "gitea")
AIRFLOW = ("airflow", "worker", "trainer")
WANTED = ("node", *STORES, *AIRFLOW)


@dataclass(frozen=True)
class Image:
    """One image of the lock. Built on this machine where `folder` is given."""

    key: str
    name: str  # with its tag
    digest: str | None
    folder: Path | None
    arguments: Mapping[str, str]

    @property
    def repository(self) -> str:
        return self.name.rpartition(":")[0]

    @property
    def tag(self) -> str:
        return self.name.rpartition(":")[2]


def locked(tree: Path = TREE) -> dict[str, Image]:
    """All images, by their key in the lock."""
    entries = tomllib.loads((tree / LOCK).read_text("utf-8"))
    return {key: image_of(tree, key, entries) for key in entries}


def image_of(tree: Path, key: str, entries: Mapping[str, dict[str, Any]]) -> Image:
    entry = entries[key]
    if "folder" not in entry:
        return Image(key, str(entry["name"]), optional(entry, "digest"), None, {})
    folder = tree / "images" / str(entry["folder"])
    # An argument that is the key of an image stands for that image: by its name, with its tag.
    meant = {
        name: image_of(tree, str(value), entries)
        for name, value in entry["arguments"].items()
        if value in entries
    }
    named = {name: base.name for name, base in meant.items()}
    arguments = {name: str(value) for name, value in entry["arguments"].items()} | named
    digests = {f"{name} digest": base.digest for name, base in meant.items() if base.digest}
    tag = content(folder, {**arguments, **digests})
    return Image(key, f"{entry['name']}:{tag}", None, folder, arguments)


def optional(entry: Mapping[str, object], key: str) -> str | None:
    return str(entry[key]) if key in entry else None


def content(folder: Path, arguments: Mapping[str, str]) -> str:
    """A tag that changes when anything does that the image is built from."""
    digest = hashlib.sha256(repr(sorted(arguments.items())).encode())
    for file in sources(folder):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:CONTENT]


def sources(folder: Path) -> Iterator[Path]:
    """The files that a build sees, in a fixed order; hidden ones and caches are none of them."""
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inner)
        if file.is_file() and (not hidden or file.name == ".dockerignore"):
            yield file


def missing(tree: Path = TREE) -> list[Image]:
    """The images that Docker does not hold; for one to be built, what it is built from counts."""
    return [image for image in lacking(tree) if not image.folder]


def unbuilt(tree: Path = TREE) -> list[Image]:
    """The images that are built here, and that Docker does not hold."""
    return [image for image in lacking(tree) if image.folder]


def lacking(tree: Path) -> list[Image]:
    """What Docker does not hold of all that a lab needs, and what that is built from."""
    known = locked(tree)
    keys = {image.key for key in WANTED for image in needed(known, known[key])}
    return [known[key] for key in known if key in keys]


def needed(known: Mapping[str, Image], image: Image) -> Iterator[Image]:
    """The image when Docker does not hold it, and what else is needed then to build it."""
    if not docker.image_id(image.name):
        yield image
        for base in bases(known, image):
            yield from needed(known, base)


def bases(known: Mapping[str, Image], image: Image) -> list[Image]:
    """The images that an image is built from."""
    return [base for base in known.values() if base.name in image.arguments.values()]


def collect(tree: Path = TREE) -> dict[str, Image]:
    """Docker holds every image that a lab needs: as it is, pulled, or built. Raises LabError."""
    known = locked(tree)
    for key in WANTED:
        provide(known, known[key])
    return known


def provide(known: Mapping[str, Image], image: Image) -> None:
    """Docker holds this image."""
    if docker.image_id(image.name):
        note_other_digest(image)
    elif image.folder:
        for base in bases(known, image):
            provide(known, base)
        print(f"  building {image.name}{MINUTES.get(image.key, '')}", flush=True)
        docker.build(image.folder, image.name, image.arguments)
    else:
        print(f"  pulling {image.name}", flush=True)
        docker.pull(image.name, image.digest)


def note_other_digest(image: Image) -> None:
    """Says so when the image at hand is not the one that the lock names."""
    if image.digest and image.digest not in docker.digests(image.name):
        print(f"  {image.name} is this machine's own image, not the lock's {image.digest[:19]}…")


def archive(image: Image) -> Path:
    """The image in a file of the user's cache: `docker save` takes twice as long as loading it.

    The file holds the image's name, too: the same content under another name is another file.
    """
    identity = hashlib.sha256(f"{image.name} {docker.image_id(image.name)}".encode()).hexdigest()
    path = folder() / f"{image.key}-{identity[:CONTENT]}.tar"
    if not path.exists():
        for older in path.parent.glob(f"{image.key}-*.tar"):
            older.unlink(missing_ok=True)
        cache.sweep(path.parent)
        docker.save(image.name, path)
    return path


def folder() -> Path:
    """Where the archives are; the node sees it, too."""
    path = cache.folder() / "images"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
