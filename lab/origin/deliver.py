"""An origin, delivered from the project's folder to the lab: first all objects, then the history.

The branch `main` is pushed last: a lab that has it has all.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.client import s3, taken_in
from lab.client.git import environment
from lab.client.hashes import BLOCK, LEGACY, MD5, hash_blocks
from lab.client.objects import Bucket, Named
from lab.errors import LabError
from lab.layout import STORE
from lab.model import Access
from lab.origin.found import FOLDER, Origin, read_found
from lab.origin.mirror import NAME, list_refs
from lab.origin.objects import CACHE
from lab.shell import run

MAIN = "main"
REMOTE = "lab"
SECONDS = 7200  # for a push
THREADS = 16
SINGLE_PUT = 5 * 2**30  # bytes; the most that S3 takes in one PUT
FIX = "lab status shows what runs; then lab up again"
NEW_LAYOUT = ("files", MD5)
PLAIN = re.compile(r"[\w.-]+")  # what the name of a remote must be to stand in a section's name
MESSAGE = """\
Let DVC use the lab's store

What is below was taken in as it was: no commit is another one. The objects of
all these commits are in the lab's store; the commits name the remotes of the
origin. To have the data of an old one, in a clone:

    git checkout COMMIT
    git restore --source=origin/main -- .dvc/config
    dvc pull
    git restore -- .dvc/config
"""


def deliver_origin(lab: Access, project: Path) -> str | None:
    """Store the objects of the project's origin, and push its history; return the newest commit.

    A datasets repository that has its main branch is left alone: then None is returned. What an
    earlier attempt did not finish is completed. Raises LabError.
    """
    folder = project / FOLDER
    mirror = folder / NAME
    if has_main(lab, mirror):
        return None
    found = read_found(folder)
    store_objects(lab, folder / CACHE)
    return push_history(lab, mirror, found)


def has_main(lab: Access, mirror: Path) -> bool:
    """Return whether the lab's datasets repository has its main branch."""
    folder = mirror if mirror.is_dir() else Path.cwd()
    return bool(git(lab, folder, "ls-remote", lab.git_url, f"refs/heads/{MAIN}"))


def git(
    lab: Access, cwd: Path, *words: str, stdin: str = "", more: Mapping[str, str] | None = None
) -> str:
    """Run git as the lab's owner and return its output; it has the time that a large push takes."""
    env = {**environment(lab), **(more or {})}
    return run(["git", *words], timeout=SECONDS, fix=FIX, cwd=cwd, env=env, stdin=stdin)


# --- Objects --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """An object of the cache."""

    path: Path
    key: str  # in the lab's bucket
    kind: str  # of its hash
    md5: str  # by which DVC names it


def list_kept(cache: Path) -> Iterator[Kept]:
    """List the objects of a cache, in both of DVC's layouts."""
    for kind, below in ((MD5, NEW_LAYOUT), (LEGACY, ())):
        for path in Path(cache, *below).glob("[0-9a-f][0-9a-f]/*"):
            key = "/".join((STORE, *below, path.parent.name, path.name))
            yield Kept(path, key, kind, (path.parent.name + path.name).removesuffix(".dir"))


def store_objects(lab: Access, cache: Path) -> None:
    """Have each object of the cache in the lab's store, whole. Raises LabError and ProofError."""
    stored = {entry["Key"]: entry for entry in s3.list_objects(lab, f"{STORE}/")}
    bucket = Bucket(lab)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(store_object, bucket, stored), list_kept(cache)))


def store_object(bucket: Bucket, stored: Mapping[str, Mapping[str, Any]], kept: Kept) -> None:
    """Store one object and prove it, unless the store has its bytes. Raises LabError, ProofError.

    The server refuses other bytes than those of the MD5, and its ETag is the one that it computed.
    """
    md5 = measure(kept)
    size = kept.path.stat().st_size
    entry = stored.get(kept.key, {})
    if (entry.get("ETag", "").strip('"'), entry.get("Size")) == (md5, size):
        return
    with s3.translating_errors(), kept.path.open("rb") as file:
        place = {"Bucket": bucket.lab.s3_bucket, "Key": kept.key}
        if size > SINGLE_PUT:
            bucket.client(None).upload_fileobj(file, **place)
        else:
            checksum = base64.b64encode(bytes.fromhex(md5)).decode()
            said = bucket.client(None).put_object(**place, Body=file, ContentMD5=checksum)
            if said.get("ETag", "").strip('"') == md5:
                return
    bucket.check(Named(None, bucket.lab.s3_bucket, kept.key, kept.kind, kept.md5, size, "its name"))


def measure(kept: Kept) -> str:
    """Return the MD5 of an object's bytes. Raises LabError when they are not those of its name."""
    with kept.path.open("rb") as file:
        md5, _ = hash_blocks(iter(partial(file.read, BLOCK), b""))
        file.seek(0)
        named = md5
        if kept.kind == LEGACY and md5 != kept.md5:
            named, _ = hash_blocks(iter(partial(file.read, BLOCK), b""), LEGACY)
    if named != kept.md5:
        raise LabError(
            f"{kept.path} is damaged: its bytes have {named}",
            "remove that file, then lab fetch: the origin has it",
        )
    return md5


# --- History --------------------------------------------------------------------------------------


def push_history(lab: Access, mirror: Path, found: Origin) -> str:
    """Push all branches and tags as they are, then main; return main's commit."""
    tip = git(lab, mirror, "rev-parse", f"refs/heads/{found.branch}").strip()
    newest = commit_settings(lab, mirror, found, tip)
    others = [f"refs/heads/{name}" for name in list_refs(mirror, "heads") if name != MAIN]
    refs = [*others, *(f"refs/tags/{name}" for name in list_refs(mirror, "tags"))]
    if found.branch != MAIN and MAIN in found.branches:
        refs.append(f"refs/heads/{MAIN}:refs/heads/{MAIN}-of-origin")
    if refs:
        git(lab, mirror, "push", "--quiet", lab.git_url, *refs)
    git(lab, mirror, "push", "--quiet", lab.git_url, f"{newest}:refs/heads/{MAIN}")
    return newest


def commit_settings(lab: Access, mirror: Path, found: Origin, tip: str) -> str:
    """Commit on top of `tip` that the lab's store is DVC's remote; return the commit.

    It is `tip` itself where all commits name that store, and no object is missing.
    """
    paths = git(lab, mirror, "ls-tree", "-r", "-z", "--name-only", tip).split("\0")
    projects = sorted({p.rpartition("/")[0] for p in paths if re.search(r"(^|/)\.dvc/[^/]+$", p)})
    before = {f"{each}/config": "" for each in projects}
    before |= {path: git(lab, mirror, "show", f"{tip}:{path}") for path in before if path in paths}
    after = {path: name_store(text, lab, found.named) for path, text in before.items()}
    if before == after and not found.missing and {*found.remotes} <= {taken_in.store_url(lab)}:
        return tip
    with tempfile.TemporaryDirectory(dir=mirror.parent, prefix="part-") as folder:
        index = {"GIT_INDEX_FILE": os.fspath(Path(folder, "index"))}
        git(lab, mirror, "read-tree", tip, more=index)
        for path, text in after.items():
            blob = git(lab, mirror, "hash-object", "-w", "--stdin", stdin=text).strip()
            entry = f"100644,{blob},{path}"
            git(lab, mirror, "update-index", "--add", "--cacheinfo", entry, more=index)
        tree = git(lab, mirror, "write-tree", more=index).strip()
    words = ("commit-tree", tree, "-p", tip)
    return git(lab, mirror, *words, stdin=write_message(found, tip)).strip()


def write_message(found: Origin, tip: str) -> str:
    """Return the message of the lab's commit: its trailers list what the origin had no more."""
    lost = sorted({each.md5 for each in found.missing})
    said = [f"{taken_in.TRAILER}: {tip}", *(f"{taken_in.LOST}: {md5}" for md5 in lost)]
    return f"{MESSAGE}\n" + "\n".join(said) + "\n"


def name_store(text: str, lab: Access, named: Sequence[str]) -> str:
    """Return a `.dvc/config` by which the lab's store is the default remote, and that of `named`.

    All else in it stays. Raises LabError when it is no configuration.
    """
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

    url = taken_in.store_url(lab)
    try:
        config = ConfigObj(text.splitlines(), interpolation=False)
    except ConfigObjError as error:
        raise LabError(
            f".dvc/config of the origin is none: {error}", "mend it there, then lab init again"
        ) from None
    sections = {f'remote "{name}"' for name in named if PLAIN.fullmatch(name)}
    if find_default(config) != {"url": url}:
        name = choose_remote(config)
        config.setdefault("core", {})["remote"] = name
        sections.add(f'remote "{name}"')
    for section in sections:
        config[section] = {"url": url}
    return "".join(f"{line}\n" for line in config.write())


def find_default(config: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the section of the default remote, or None without one."""
    name = config.get("core", {}).get("remote")
    found = config.get(f'remote "{name}"')
    return dict(found) if found else None


def choose_remote(config: Mapping[str, Any]) -> str:
    """Return a name that no remote has."""
    number, name = 1, REMOTE
    while f'remote "{name}"' in config:
        number += 1
        name = f"{REMOTE}-{number}"
    return name
