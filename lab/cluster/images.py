"""The lab's images: pinned in a lock file, pulled or built, and saved as archives for the node."""

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
# The images that the node runs, in the order in which they are needed.
STORES = ("postgresql", "minio", "gitea")
AIRFLOW = ("airflow", "worker", "trainer")
WANTED = ("node", *STORES, *AIRFLOW)


@dataclass(frozen=True)
class Image:
    """One image of the lock; built on this machine if it has a `folder`."""

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


def read_lock(tree: Path = TREE) -> dict[str, Image]:
    """Read the lock and return its images by key."""
    entries = tomllib.loads((tree / LOCK).read_text("utf-8"))
    return {key: image_from_lock(tree, key, entries) for key in entries}


def image_from_lock(tree: Path, key: str, entries: Mapping[str, dict[str, Any]]) -> Image:
    entry = entries[key]
    if "folder" not in entry:
        return Image(key, str(entry["name"]), str_or_none(entry, "digest"), None, {})
    folder = tree / "images" / str(entry["folder"])
    # A build argument that is the key of an image is replaced by that image's name and tag.
    referenced = {
        name: image_from_lock(tree, str(value), entries)
        for name, value in entry["arguments"].items()
        if value in entries
    }
    named = {name: base.name for name, base in referenced.items()}
    arguments = {name: str(value) for name, value in entry["arguments"].items()} | named
    digests = {f"{name} digest": base.digest for name, base in referenced.items() if base.digest}
    tag = content_tag(folder, {**arguments, **digests})
    return Image(key, f"{entry['name']}:{tag}", None, folder, arguments)


def str_or_none(entry: Mapping[str, object], key: str) -> str | None:
    return str(entry[key]) if key in entry else None


def content_tag(folder: Path, arguments: Mapping[str, str]) -> str:
    """Return a tag: a hash of the build folder's files and of the arguments."""
    digest = hashlib.sha256(repr(sorted(arguments.items())).encode())
    for file in list_sources(folder):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:CONTENT]


def list_sources(folder: Path) -> Iterator[Path]:
    """Yield the files of a build folder in a fixed order, without hidden files and caches."""
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inner)
        if file.is_file() and (not hidden or file.name == ".dockerignore"):
            yield file


def list_unpulled(tree: Path = TREE) -> list[Image]:
    """List the images to pull, including the bases of images to build."""
    return [image for image in list_missing(tree) if not image.folder]


def list_unbuilt(tree: Path = TREE) -> list[Image]:
    """List the images to build on this machine."""
    return [image for image in list_missing(tree) if image.folder]


def list_missing(tree: Path) -> list[Image]:
    """List the images that a lab needs and Docker lacks, and the bases to build them from."""
    known = read_lock(tree)
    keys = {image.key for key in WANTED for image in walk_missing(known, known[key])}
    return [known[key] for key in known if key in keys]


def walk_missing(known: Mapping[str, Image], image: Image) -> Iterator[Image]:
    """Yield the image if Docker lacks it, and then those of its bases that Docker lacks."""
    if not docker.image_id(image.name):
        yield image
        for base in list_bases(known, image):
            yield from walk_missing(known, base)


def list_bases(known: Mapping[str, Image], image: Image) -> list[Image]:
    """List the images that an image is built from."""
    return [base for base in known.values() if base.name in image.arguments.values()]


def ensure_images(tree: Path = TREE) -> dict[str, Image]:
    """Pull or build each image that a lab needs, unless Docker has it. Raises LabError."""
    known = read_lock(tree)
    for key in WANTED:
        ensure_image(known, known[key])
    return known


def ensure_image(known: Mapping[str, Image], image: Image) -> None:
    """Pull or build this image, unless Docker has it."""
    if docker.image_id(image.name):
        note_other_digest(image)
    elif image.folder:
        for base in list_bases(known, image):
            ensure_image(known, base)
        print(f"  building {image.name}{MINUTES.get(image.key, '')}", flush=True)
        docker.build(image.folder, image.name, image.arguments)
    else:
        print(f"  pulling {image.name}", flush=True)
        docker.pull(image.name, image.digest)


def note_other_digest(image: Image) -> None:
    """Print a line if Docker's image does not have the lock's digest."""
    if image.digest and image.digest not in docker.list_digests(image.name):
        print(f"  {image.name} is this machine's own image, not the lock's {image.digest[:19]}…")


def ensure_archive(image: Image) -> Path:
    """Return the image's archive in the user's cache, saving it unless it exists.

    It is kept because `docker save` takes twice as long as loading the image. The archive holds the
    image's name, too, so the same content under another name is another file.
    """
    identity = hashlib.sha256(f"{image.name} {docker.image_id(image.name)}".encode()).hexdigest()
    path = ensure_archive_folder() / f"{image.key}-{identity[:CONTENT]}.tar"
    if not path.exists():
        for older in path.parent.glob(f"{image.key}-*.tar"):
            older.unlink(missing_ok=True)
        cache.remove_stale_parts(path.parent)
        docker.save(image.name, path)
    return path


def ensure_archive_folder() -> Path:
    """Create the archive folder unless it exists; it is mounted into the node."""
    path = cache.ensure_folder() / "images"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
