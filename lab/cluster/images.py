"""The lab's images: pinned in a lock file, pulled or built, and saved as archives for the node.

A project's own images are beside them, as its lab.toml declares them. Each is built from a folder
that holds what its tag is a hash of, and nothing else: no hidden file gets into it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.cluster import cache, docker
from lab.config import Config
from lab.errors import LabError, MachineError, ProjectError
from lab.files import digest_files
from lab.project import FILE, OwnImage

LOCK = Path("images", "lock.toml")
# The kit's Dockerfile for an image of one's own, and what it needs.
OWN = (Path("images", "own", "Dockerfile"), Path("images", "worker", "build-requirements.txt"))
DOCKERFILE, REQUIREMENTS, PACKAGE = "Dockerfile", "requirements.txt", "pyproject.toml"
STEPS = "steps"  # the folder of one's own files where the kit's Dockerfile builds the image
MINUTES = {"minio-source": ", once: about four minutes"}
BLOBS = "blobs/sha256/"  # in an archive: the folder of what is named by its hash
CONTENT = 16  # hexadecimal digits of a built image's tag
# The images that the node runs.
STORES = ("postgresql", "minio", "gitea", "pod-identity")
AIRFLOW = ("airflow", "worker", "trainer")
WANTED = ("node", *STORES, *AIRFLOW)
# Of a Dockerfile: the names that an ARG declares, and the last word of a USER.
ARG = re.compile(r"^[ \t]*ARG[ \t]+(.+)$", re.IGNORECASE | re.MULTILINE)
USER = re.compile(r"^[ \t]*(?:(USER)[ \t]+(\S+)|FROM[ \t].*)$", re.IGNORECASE | re.MULTILINE)
ROOT = re.compile(r"(root|0+)(:.*)?")


@dataclass(frozen=True)
class Image:
    """One image of the lock or of the project.

    It is built on this machine if it has a `folder`, or `files`: those of one's own image, by their
    paths in the folder that it is built in. Where a public image can't be had, `instead` is built,
    if there is one.
    """

    key: str
    name: str  # with its tag
    digest: str | None
    folder: Path | None
    arguments: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    instead: Image | None = None
    stands_for: str = ""  # the repository that the manifests name, if it is another one

    @property
    def is_built(self) -> bool:
        return bool(self.folder or self.files)

    @property
    def repository(self) -> str:
        return self.name.rpartition(":")[0]

    @property
    def tag(self) -> str:
        return self.name.rpartition(":")[2]


def read_lock(config: Config) -> dict[str, Image]:
    """Return the images by key: those of the lock, then the project's own.

    Raises ProjectError for one of its own that can't be right.
    """
    entries = tomllib.loads((config.kit / LOCK).read_text("utf-8"))
    known = {key: image_from_lock(config.kit, key, entries) for key in entries}
    project = config.project
    own = {
        name: own_image(config.kit, f"{project.name}/{name}", declared, known)
        for name, declared in project.images.items()
    }
    return {**known, **own}


def list_own(known: Mapping[str, Image]) -> list[str]:
    """List the keys of the project's own images."""
    return [key for key, image in known.items() if image.files]


def list_loaded(known: Mapping[str, Image]) -> list[str]:
    """List the keys of the images that the node runs, in the order in which it gets them.

    The trainer's comes last, but for what is built from it.
    """
    early = [*STORES, "airflow", "worker"]
    trainer = known["trainer"]
    own = list_own(known)
    late = [key for key in own if trainer in list_bases(known, known[key])]
    return [*early, *(key for key in own if key not in late), "trainer", *late]


def list_wanted(known: Mapping[str, Image]) -> list[str]:
    """List the keys of the images that a lab needs."""
    return [*WANTED, *list_own(known)]


def image_from_lock(kit: Path, key: str, entries: Mapping[str, dict[str, Any]]) -> Image:
    entry = entries[key]
    if "folder" not in entry:
        other = str_or_none(entry, "instead")
        instead = image_from_lock(kit, other, entries) if other else None
        digest = str_or_none(entry, "digest")
        return Image(key, str(entry["name"]), digest, None, {}, instead=instead)
    folder = kit / "images" / str(entry["folder"])
    # A build argument that is the key of an image is replaced by that image's name and tag.
    referenced = {
        name: image_from_lock(kit, str(value), entries)
        for name, value in entry["arguments"].items()
        if value in entries
    }
    named = {name: base.name for name, base in referenced.items()}
    arguments = {name: str(value) for name, value in entry["arguments"].items()} | named
    digests = {f"{name} digest": base.digest for name, base in referenced.items() if base.digest}
    tag = content_tag(folder, {**arguments, **digests, **built_for()})
    return Image(key, f"{entry['name']}:{tag}", None, folder, arguments)


def str_or_none(entry: Mapping[str, object], key: str) -> str | None:
    return str(entry[key]) if key in entry else None


def built_for() -> dict[str, str]:
    """Return what a tag says of the platform: an image for another one has another tag.

    Docker builds for DOCKER_DEFAULT_PLATFORM if that is set, else for its own machine.
    """
    own = docker.name_platform(platform.machine())
    return {"built for": os.environ.get(docker.PLATFORM) or own}


def content_tag(folder: Path, arguments: Mapping[str, str]) -> str:
    """Return a tag: a hash of the build folder's files and of the arguments."""
    files = {file.relative_to(folder).as_posix(): file for file in list_sources(folder)}
    return files_tag(files, arguments)


def files_tag(files: Mapping[str, Path], arguments: Mapping[str, str]) -> str:
    """Return a tag: a hash of the files with their names, in this order, and of the arguments."""
    return digest_files(files, repr(sorted(arguments.items())).encode())[:CONTENT]


def list_sources(folder: Path) -> Iterator[Path]:
    """Yield the files of a build folder in a fixed order, without hidden files and caches."""
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inner)
        if file.is_file() and (not hidden or file.name == ".dockerignore"):
            yield file


# --- Images of one's own --------------------------------------------------------------------------


def own_image(kit: Path, repository: str, declared: OwnImage, known: Mapping[str, Image]) -> Image:
    """Return an image of the project's. Raises ProjectError when it can't be right."""
    if not list_own_files(declared):
        raise ProjectError(
            f"{FILE}: the folder of the image {declared.name} is empty",
            f"put what its steps need into it: {REQUIREMENTS}, or modules",
        )
    files = list_files(kit, declared)
    dockerfile = files[DOCKERFILE].read_text("utf-8", "replace")
    if runs_as_root(dockerfile):
        raise ProjectError(
            f"{FILE}: the last USER of {files[DOCKERFILE]} is root, and a step is not",
            "end it with: USER 10001",
        )
    asked = find_arguments(dockerfile)
    bases = {name: known[key] for key in known if (name := f"{key.upper()}_IMAGE") in asked}
    arguments = {name: base.name for name, base in bases.items()}
    digests = {f"{name} digest": base.digest for name, base in bases.items() if base.digest}
    tag = files_tag(files, {**arguments, **digests, **built_for()})
    return Image(declared.name, f"{repository}:{tag}", None, None, arguments, files)


def list_files(kit: Path, declared: OwnImage) -> dict[str, Path]:
    """Return the files that an image of one's own is built from, by their paths there.

    A folder with a Dockerfile is built as it is. The kit's Dockerfile has the rest in `steps/`.
    """
    files = list_own_files(declared)
    if DOCKERFILE in files:
        return files
    frame = {file.name: kit / file for file in OWN}
    return {**frame, **{f"{STEPS}/{name}": file for name, file in files.items()}}


def list_own_files(declared: OwnImage) -> dict[str, Path]:
    """Return the files of an image of one's own, by their paths in its folder."""
    if declared.requirements:
        return {REQUIREMENTS: declared.requirements}
    if not declared.folder:
        return {}
    folder = declared.folder
    return {file.relative_to(folder).as_posix(): file for file in list_sources(folder)}


def find_arguments(dockerfile: str) -> set[str]:
    """Return the names of the build arguments that a Dockerfile asks for."""
    words = (word for line in ARG.findall(dockerfile) for word in line.split())
    return {word.partition("=")[0] for word in words}


def runs_as_root(dockerfile: str) -> bool:
    """Return whether a Dockerfile's last stage says that its user is root."""
    last = None
    for found in USER.finditer(dockerfile):
        last = found[2] if found[1] else None  # FROM begins a stage, with its base's user
    return bool(last and ROOT.fullmatch(last))


def has_hashes(requirements: Path) -> bool:
    """Return whether a file of requirements says which files they are."""
    return "--hash=" in requirements.read_text("utf-8", "replace")


def tell_unpinned(name: str, files: Mapping[str, Path]) -> None:
    """Print a line when the image's requirements do not say which files they are."""
    file = files.get(f"{STEPS}/{REQUIREMENTS}") or files.get(REQUIREMENTS)
    if file and not has_hashes(file):
        print(f"  image {name}: {file.name} has no hashes: any file of that version is installed")


@contextmanager
def collecting(files: Mapping[str, Path]) -> Iterator[Path]:
    """Yield a folder with a copy of these files, which is deleted after the block."""
    with tempfile.TemporaryDirectory(prefix="lab-image-") as name:
        for path, file in files.items():
            target = Path(name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            target.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
        for folder in Path(name).rglob("*/"):
            folder.chmod(0o755)  # a step is another user, who reads all of it
        yield Path(name)


# --- Bringing them --------------------------------------------------------------------------------


def is_pullable(_image: Image) -> bool:
    """Return whether a registry gives the image, as long as nobody has asked one."""
    return True


def list_missing(config: Config, can_pull: Callable[[Image], bool] = is_pullable) -> list[Image]:
    """List the images that a lab needs and Docker lacks, and the bases to build them from.

    Of an image that can't be pulled, the one that is built instead of it is listed.
    """
    known = read_lock(config)
    wanted = (known[key] for key in list_wanted(known))
    keys = {i.key for image in wanted for i in walk_missing(known, image, can_pull)}
    return [known[key] for key in known if key in keys]


def walk_missing(
    known: Mapping[str, Image], image: Image, can_pull: Callable[[Image], bool] = is_pullable
) -> Iterator[Image]:
    """Yield the image if Docker lacks it, and then those of its bases that Docker lacks."""
    if is_held(image):
        return
    if image.instead and not can_pull(image):
        yield from walk_missing(known, image.instead, can_pull)
        return
    yield image
    for base in list_bases(known, image):
        yield from walk_missing(known, base, can_pull)


def is_held(image: Image) -> bool:
    """Return whether Docker has the image, or the one that is built instead of it."""
    return bool(docker.image_id(image.name) or (image.instead and is_held(image.instead)))


def list_bases(known: Mapping[str, Image], image: Image) -> list[Image]:
    """List the images that an image is built from."""
    return [base for base in known.values() if base.name in image.arguments.values()]


def ensure_images(config: Config) -> dict[str, Image]:
    """Pull or build each image that a lab needs, unless Docker has it; return those it has.

    Raises LabError.
    """
    known = read_lock(config)
    for key in list_wanted(known):
        ensure_image(known, known[key])
    return choose(known)


def choose(known: Mapping[str, Image]) -> dict[str, Image]:
    """Return the images by key: in place of one that Docker lacks, the one built instead of it."""
    return {key: choose_one(image) for key, image in known.items()}


def choose_one(image: Image) -> Image:
    other = image.instead
    if other is None or docker.image_id(image.name) or not docker.image_id(other.name):
        return image
    return replace(other, key=image.key, stands_for=image.repository)


def ensure_image(known: Mapping[str, Image], image: Image) -> None:
    """Pull or build this image, unless Docker has it."""
    if docker.image_id(image.name):
        note_other_digest(image)
    elif image.is_built:
        for base in list_bases(known, image):
            ensure_image(known, base)
        print(f"  building {image.name}{MINUTES.get(image.key, '')}", flush=True)
        with telling("built", image):
            build_image(image)
    elif image.instead and is_held(image.instead):
        print(f"  {image.instead.name}, built from source, is used for {image.name}")
    else:
        pull(known, image)


def pull(known: Mapping[str, Image], image: Image) -> None:
    """Pull the image; where no registry gives it, build the one that is meant for that case."""
    print(f"  pulling {image.name}", flush=True)
    try:
        with telling("pulled", image):
            docker.pull(image.name, image.digest)
    except MachineError:
        raise
    except LabError as error:
        if not image.instead:
            raise
        print(f"  {image.name} can't be pulled ({error.what}): it is built from source instead")
        ensure_image(known, image.instead)


@contextmanager
def telling(done: str, image: Image) -> Iterator[None]:
    """Print what was done to the image, its size and the seconds that it took."""
    began = time.monotonic()
    yield
    size, seconds = to_megabytes(docker.image_size(image.name)), time.monotonic() - began
    print(f"  {done} {image.name}: {size}, {seconds:.0f} s", flush=True)


def to_megabytes(count: int) -> str:
    return f"{count / 10**6:.0f} MB"


def build_image(image: Image) -> None:
    """Build the image. Raises LabError."""
    if image.folder:
        docker.build(image.folder, image.name, image.arguments)
        return
    tell_unpinned(image.key, image.files)
    with collecting(image.files) as folder:
        docker.build(folder, image.name, image.arguments, whose=f"[images.{image.key}] of {FILE}")


def note_other_digest(image: Image) -> None:
    """Print a line if Docker's image does not have the lock's digest."""
    if image.digest and image.digest not in docker.list_digests(image.name):
        print(f"  {image.name} is this machine's own image, not the lock's {image.digest[:19]}…")


def ensure_archive(known: Mapping[str, Image], image: Image) -> Path:
    """Return the image's archive in the user's cache, saving it unless it exists.

    It is kept because `docker save` takes twice as long as loading the image. The archive holds the
    image's name, too, so the same content under another name is another file. It lacks the layers
    that are in the archive of the image that it was built from, which has to be loaded before.
    """
    path = archive_path(image)
    if not path.exists():
        label = path.name.rpartition("-")[0]
        for older in path.parent.glob(f"{label}-{'?' * CONTENT}.tar"):
            older.unlink(missing_ok=True)
        cache.remove_stale_parts(path.parent)
        bases = [base for base in list_bases(known, image) if base.is_built and is_held(base)]
        held = {name for base in bases for name in list_members(ensure_archive(known, base))}
        docker.save(image.name, path, leave_out=held)
    return path


def archive_path(image: Image) -> Path:
    """Return where the archive of Docker's image of this name is, or will be."""
    identity = hashlib.sha256(f"{image.name} {docker.image_id(image.name)}".encode()).hexdigest()
    # Of one's own images the project's name is a part: projects share the cache.
    label = image.repository.replace("/", ".") if image.files else image.key
    return ensure_archive_folder() / f"{label}-{identity[:CONTENT]}.tar"


def list_members(archive: Path) -> set[str]:
    """Return the names of the layers, manifests and configurations in an archive."""
    with tarfile.open(archive) as opened:
        return {name for name in opened.getnames() if name.startswith(BLOBS)}


def ensure_archive_folder() -> Path:
    """Create the archive folder unless it exists; it is mounted into the node."""
    path = cache.ensure_folder() / "images"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
