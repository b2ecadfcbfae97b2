"""The program that copies an origin's objects out of its remotes, by DVC: `objects` runs it.

Its input is one line of JSON, in which pointers of all commits are named, and its output another
one. It runs in the mirror with the person's own environment, and ends when nobody waits any more.
DVC's own fetch is not used: it removes damaged objects from a remote that is a folder, and it does
not say which commit has an object.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dvc.cachemgr import LEGACY_HASH_NAMES
from dvc.config import Config
from dvc.dvcfile import load_file
from dvc.fs import GitFileSystem, get_fs_config, localfs
from dvc.repo import Repo
from dvc.scm import SCM
from dvc.utils.serialize import parse_yaml
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_data.hashfile.hash import file_md5

MD5, LEGACY = "md5", "md5-dos2unix"
OWN = "its cache"
LISTING = ".dir"  # the end of the hash of a folder's list of files
THREADS = 32
ATTEMPTS = 3
MOST_FAILURES = 3  # of a remote that has not answered once; then it is asked no more


# --- Places that have objects ---------------------------------------------------------------------


@dataclass(eq=False)
class Place:
    """A remote, or the cache of an origin on this machine."""

    name: str
    url: str  # without credentials
    fs: Any = None
    stores: dict[str, Any] = field(default_factory=dict)  # DVC's, by the kind of hash
    error: str = ""  # why nothing can be read there, or the last failure
    answers: int = 0
    failures: int = 0
    versions: Any = None  # DVC's remote, if it keeps versions of files and no objects
    breaks: int = 0  # failures that another attempt may not have

    @property
    def is_dead(self) -> bool:
        """Whether it has never answered."""
        return not self.answers and (not self.stores or self.failures >= MOST_FAILURES)

    def copy(self, kind: str, oid: str, into: str) -> str | None:
        """Copy an object to a file; return None, or why the place does not have it."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self.write(kind, oid, into)
            except FileNotFoundError:
                self.answers += 1
                return f"{self.name} ({self.url}) does not have it"
            except Exception as error:  # whatever the file system raises is its answer
                self.error = describe(error)
                if attempt == ATTEMPTS or isinstance(error, PermissionError) or self.is_dead:
                    self.failures += 1
                    self.breaks += not isinstance(error, PermissionError)
                    return f"{self.name} ({self.url}) can't be read: {self.error}"
            else:
                self.answers += 1
                return None
        raise AssertionError

    def write(self, kind: str, oid: str, into: str) -> None:
        """Copy an object to a file. Raise what the file system raises."""
        self.fs.get_file(self.stores[kind].oid_to_path(oid), into)


@dataclass(eq=False)
class Files(Place):
    """Files that are no objects, though pointers name their hashes.

    They are in another repository, from which they were imported, or versions that a cloud keeps.
    """

    paths: dict[str, str] = field(default_factory=dict)  # by hash
    listing: bytes = b""  # of a folder

    def add(self, root: str, oid: str, tree: Any, version: str | None) -> None:
        """Add what one output names: a file, or all files of a folder."""
        if tree is None:
            self.paths[oid] = self.path_of(root, version)
            return
        self.listing = tree.as_bytes()
        for key, meta, found in tree:
            version = meta.version_id if meta else None
            self.paths[found.value] = self.path_of(self.fs.join(root, *key), version)

    def path_of(self, path: str, version: str | None) -> str:
        return str(self.fs.version_path(path, version)) if version else path

    def write(self, kind: str, oid: str, into: str) -> None:  # noqa: ARG002  a hash is enough here
        if oid.endswith(LISTING):
            Path(into).write_bytes(self.listing)
        elif oid in self.paths:
            self.fs.get_file(self.paths[oid], into)
        else:
            raise FileNotFoundError(oid)


def find_import(output: Any) -> Place:
    """Return the files of the repository from which an output was imported."""
    url = hide_credentials(str(output.stage.deps[0].def_repo.get("url", "")))
    try:
        dep = output.stage.deps[0]
        tree = None
        if output.hash_info.isdir:
            _, _, tree = build(output.cache, dep.fs_path, dep.fs, output.hash_name, dry_run=True)
        place = Files("the imported repository", url, dep.fs, {MD5: None, LEGACY: None})
        place.add(dep.fs_path, output.hash_info.value, tree, None)
    except Exception as error:  # whatever DVC raises says why nothing can be read there
        return Place("the imported repository", url, error=describe(error))
    return place


def find_versions(remote: Any, output: Any, place: Place) -> Place:
    """Return the versions of files that a remote keeps for an output."""
    try:
        tree = output.get_obj() if output.hash_info.isdir else None
        found = Files(place.name, place.url, remote.fs, {MD5: None, LEGACY: None})
        root = remote.fs.join(remote.path, *output.index_key[1])
        found.add(root, output.hash_info.value, tree, output.meta.version_id)
    except Exception as error:  # whatever DVC raises says why nothing can be read there
        return Place(place.name, place.url, error=describe(error))
    return found


def describe(error: BaseException) -> str:
    """Return in one line what an error says."""
    cause = error.__cause__ if type(error).__name__ == "YAMLValidationError" else None
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said.rstrip('.')}: {describe(cause)}" if cause else said


def hide_credentials(url: str) -> str:
    """Return a URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


# --- DVC's view of a commit -----------------------------------------------------------------------


class Project:
    """A DVC project as of one commit: the one that the pointers of a folder belong to."""

    def __init__(self, commit: str, folder: str, cache: Path, origin: Path | None) -> None:
        scm = SCM(".")
        fs = GitFileSystem(scm=scm, rev=commit)
        site = {"core": {"site_cache_dir": str(cache.parent / "site")}}
        own = {"cache": {"dir": str(cache), "local": ""}, **site}
        self.repo = Repo(folder, fs=fs, scm=scm, config=own)
        self.beside: dict[str, str] = {}  # the remotes whose URL is a path in somebody's clone
        self.read_settings(origin)

    def read_settings(self, origin: Path | None) -> None:
        """Read the URLs that are relative to a clone; of a clone on this machine, its settings."""
        config = self.repo.config
        committed = Config.load_file(posixpath.join(self.repo.dvc_dir, "config"), fs=self.repo.fs)
        own = origin and origin / self.repo.root_dir.lstrip("/") / ".dvc"
        for name, options in committed.get("remote", {}).items():
            url = str(options.get("url", ""))
            if re.match(r"\w+://", url) or os.path.isabs(os.path.expanduser(url)):  # noqa: PTH111, PTH117
                continue
            if own:
                config["remote"][name]["url"] = os.path.abspath(own / url)  # noqa: PTH100
            else:
                self.beside[name] = url
        if own and own.is_dir():
            local = Config(str(own), validate=False).load_one("local")
            config.merge({key: local[key] for key in ("remote", "core") if local.get(key)})

    def load_outputs(self, path: str, text: str | None) -> list[Any]:
        """Return the outputs that a file of DVC names: this text, or the one of the commit.

        Raises what DVC raises.
        """
        file = load_file(self.repo, path)
        if text is not None:
            self.repo.dvcignore = None  # what one commit ignores is no matter of where data is
        else:
            return [output for stage in file.stages.values() for output in stage.outs]
        content = file.validate(parse_yaml(text, file.path), file.path)
        return list(file.LOADER.load_stage(file, content, text).outs)


@dataclass
class Places:
    """All places of an origin that have objects; each is opened once."""

    origin: Path | None
    known: dict[str, Place] = field(default_factory=dict)

    def find_remote(self, project: Project, name: str | None) -> Place | None:
        """Return the remote of this name, or the default one; None where there is none."""
        name = name or project.repo.config["core"].get("remote")
        if not name:
            return None
        try:
            settings = dict(get_fs_config(project.repo.config, name=name))
        except Exception as error:  # a remote that no section describes
            return self.known.setdefault(name, Place(name, "", error=describe(error)))
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self.known:
            url = project.beside.get(name) or hide_credentials(str(settings["url"]))
            self.known[key] = self.open_remote(project, name, url)
        return self.known[key]

    @staticmethod
    def open_remote(project: Project, name: str, url: str) -> Place:
        """Return the remote; one that can't be read says why."""
        if name in project.beside:
            return Place(name, url, error="it is a folder beside somebody's clone")
        try:
            remote = project.repo.cloud.get_remote(name)
            if remote.fs.protocol == "local" and not localfs.isdir(remote.path):
                return Place(name, url, error="there is no such folder")
            if remote.fs.version_aware or remote.worktree:
                return Place(name, url, remote.fs, versions=remote)
            return Place(name, url, remote.fs, {MD5: remote.odb, LEGACY: remote.legacy_odb})
        except Exception as error:  # whatever DVC raises says what this machine lacks
            return Place(name, url, error=describe(error))

    def add_cache(self, folder: str) -> None:
        """Add the cache of a clone on this machine: what was pushed to no remote may be there."""
        own = self.origin and self.origin / folder.lstrip("/") / ".dvc"
        if own and own.is_dir():
            with suppress(Exception):  # its settings are none
                path = Config(str(own)).get("cache", {}).get("dir") or str(own / "cache")
                if localfs.isdir(path):
                    layouts = {LEGACY: path, MD5: posixpath.join(path, "files", MD5)}
                    found = {k: LocalHashFileDB(localfs, p) for k, p in layouts.items()}  # type: ignore[no-untyped-call]
                    self.known[path] = Place(OWN, path, localfs, found)


# --- What is wanted -------------------------------------------------------------------------------


@dataclass
class Wanted:
    """An object, the places that should have it, and what names it."""

    kind: str
    oid: str
    places: list[Place] = field(default_factory=list)
    commits: dict[str, dict[str, None]] = field(default_factory=dict)  # by path
    why: str = ""  # it is missing

    def add(self, path: str, commits: Iterable[str], places: Iterable[Place]) -> None:
        self.commits.setdefault(path, {}).update(dict.fromkeys(commits))
        self.places += [place for place in places if place not in self.places]

    def describe(self) -> dict[str, object]:
        said = {path: list(commits) for path, commits in self.commits.items()}
        return {"md5": self.oid, "commits": said, "why": self.why}


class Collection:
    """All objects that the pointers of an origin name, and the cache that they are copied to."""

    def __init__(self, cache: str, origin: str | None) -> None:
        self.cache = Path(cache)
        self.origin = Path(origin) if origin else None
        self.places = Places(self.origin)
        self.projects: dict[tuple[str, ...], Project] = {}
        self.wanted: dict[tuple[str, str], Wanted] = {}
        self.unread: list[dict[str, str]] = []
        self.newest: list[dict[str, Any]] = []
        self.used: dict[int, Place] = {}  # by the newest commit
        self.named: dict[str, None] = {}  # remotes that an output names

    def read(self, pointer: dict[str, Any]) -> None:
        """Add what one pointer of one commit names. What DVC can't read is noted."""
        path, commit, text = f"/{pointer['path']}", pointer["commit"], pointer["text"]
        try:
            project = self.find_project(path, commit, pointer["config"], text)
            outputs = project.load_outputs(path, text)
            said = [self.add_output(project, pointer, output) for output in outputs]
        except Exception as error:  # whatever DVC raises is its answer
            said = []
            self.unread.append({"path": path[1:], "commit": commit, "why": describe(error)})
        if pointer["newest"] and text is not None:
            why = "" if said else self.unread[-1]["why"]
            self.newest.append({"path": path[1:], "outputs": said, "why": why})

    def find_project(self, path: str, commit: str, config: list[str], text: str | None) -> Project:
        """Return the project of a pointer; one for all commits with the same settings.

        What is no pointer is read from its own commit.
        """
        folder = posixpath.dirname(path)
        key = (folder, *config) if text is not None else (folder, commit)
        if key not in self.projects:
            self.projects[key] = Project(commit, folder, self.cache, self.origin)
            self.places.add_cache(self.projects[key].repo.root_dir)
        return self.projects[key]

    def add_output(
        self, project: Project, pointer: dict[str, Any], output: Any
    ) -> dict[str, object]:
        """Add the object of one output; return what a data set must be."""
        imported = output.stage.is_repo_import
        if output.remote:
            self.named[output.remote] = None
        if output.use_cache and output.is_in_repo and output.hash_info:
            places = self.list_places(project, pointer, output)
            kind = LEGACY if output.hash_name in LEGACY_HASH_NAMES else MD5
            self.want(kind, output.hash_info.value).add(
                pointer["path"], [pointer["commit"]], places
            )
        named = output.hash_info.value if output.hash_info else ""
        return {
            "path": output.fs_path.lstrip("/"),
            "cached": bool(output.use_cache and output.is_in_repo),
            "imported": bool(imported),
            "md5": named if named in (pointer["text"] or "") else None,  # it may list files only
            "size": output.meta.size,
        }

    def list_places(self, project: Project, pointer: dict[str, Any], output: Any) -> list[Place]:
        """List where the data of an output should be."""
        if output.stage.is_repo_import:
            return [find_import(output)]
        place = self.places.find_remote(project, output.remote)
        if place and place.versions:
            return [find_versions(place.versions, output, place)]
        if place and pointer["newest"]:
            self.used[id(place)] = place
        return [place] if place else []

    def want(self, kind: str, oid: str) -> Wanted:
        return self.wanted.setdefault((kind, oid), Wanted(kind, oid))

    def path_of(self, kind: str, oid: str) -> Path:
        """Return where DVC keeps an object in a cache."""
        layout = ("files", MD5) if kind == MD5 else ()
        return Path(self.cache, *layout, oid[:2], oid[2:])

    # --- Copying ----------------------------------------------------------------------------------

    def copy_all(self) -> None:
        """Copy all objects, the lists of folders first: they name the others."""
        listings = [each for each in self.wanted.values() if each.oid.endswith(LISTING)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self.copy, listings))
            for listing in listings:
                self.add_files(listing)
            list(pool.map(self.copy, self.wanted.values()))

    def add_files(self, listing: Wanted) -> None:
        """Add the files of a folder whose list is there."""
        if listing.why:
            return
        for path, oid in read_listing(self.path_of(listing.kind, listing.oid)):
            one = self.want(listing.kind, oid)
            for pointer, commits in listing.commits.items():
                one.add(f"{pointer.removesuffix('.dvc')}/{path}", commits, listing.places)

    def copy(self, wanted: Wanted) -> None:
        """Have an object in the cache, from the first place that has its bytes; or say why not."""
        into = self.path_of(wanted.kind, wanted.oid)
        if into.exists():
            return
        known = self.places.known.values()
        others = [each for each in known if each not in wanted.places and not each.versions]
        reasons = []
        for place in [*wanted.places, *others]:
            why = self.copy_from(place, wanted, into)
            if why is None:
                return
            reasons.append(why)
        wanted.why = reasons[0] if wanted.places else "its commit names no remote"

    def copy_from(self, place: Place, wanted: Wanted, into: Path) -> str | None:
        """Copy an object from a place, and check its bytes; return None, or why it is not there."""
        if place.is_dead:
            return f"{place.name} ({place.url}) can't be read: {place.error}"
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache.parent, prefix="part-") as folder:
            part = Path(folder, "object")
            if why := place.copy(wanted.kind, wanted.oid, str(part)):
                return why
            if file_md5(str(part), name=wanted.kind) != wanted.oid.removesuffix(LISTING):
                return f"{place.name} ({place.url}) holds other bytes under its name"
            part.replace(into)
        return None

    def report(self) -> dict[str, object]:
        """Return what was found, and what not."""
        wanted = self.wanted.values()
        there = [self.path_of(each.kind, each.oid) for each in wanted if not each.why]
        places = [place for place in self.places.known.values() if place.name != OWN]
        return {
            "objects": len(there),
            "size": sum(path.stat().st_size for path in there),
            "missing": [each.describe() for each in wanted if each.why],
            "unread": self.unread,
            "newest": self.newest,
            "named": list(self.named),
            "remotes": [
                {
                    "name": place.name,
                    "url": place.url,
                    "newest": id(place) in self.used,
                    "error": place.error if place.is_dead else "",
                    "unsettled": place.error if place.answers and place.breaks else "",
                }
                for place in places
            ],
        }


def read_listing(path: Path) -> Iterator[tuple[str, str]]:
    """Yield path and hash of each file of a folder. Nothing where the list is none."""
    with suppress(ValueError, KeyError, TypeError):
        for entry in json.loads(path.read_bytes()):
            yield str(entry["relpath"]), str(entry["md5"])


def end_with_reader(stream: Any) -> None:
    """End this process when whoever started it is gone."""
    stream.read()
    signal.raise_signal(signal.SIGTERM)


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    Thread(target=partial(end_with_reader, sys.stdin), daemon=True).start()
    with redirect_stdout(sys.stderr):  # whatever DVC prints is no answer
        collection = Collection(asked["cache"], asked["origin"])
        for pointer in asked["pointers"]:
            collection.read(pointer)
        collection.copy_all()
        said = collection.report()
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
