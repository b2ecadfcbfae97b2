"""The program by which DVC says where the data of pointers is: `lab.client.dvc_process` runs it.

Each line of its input is a list of that module's `Question` as JSON; each of its output the answers
to one: the fields of a `Place`, or a text that says why there is none. It runs in a clone, with
whose commits it answers.
"""

from __future__ import annotations

import json
import posixpath
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from dvc.cachemgr import LEGACY_HASH_NAMES
from dvc.config import NoRemoteError
from dvc.dvcfile import load_file
from dvc.fs import GitFileSystem, get_fs_config
from dvc.repo import Repo
from dvc.scm import SCM
from dvc.utils.serialize import parse_yaml
from dvc.utils.strictyaml import YAMLValidationError

STAND_IN = "the lab's store"  # in place of whatever remote an older commit names


class NotKept(Exception):
    """The data is in no S3 remote of this repository, or not under its hash."""


class Project:
    """A DVC project as of one commit: the one that the pointers of a folder belong to."""

    def __init__(self, commit: str, folder: str, store: str | None = None) -> None:
        """Read the commit's configuration; `store` is the URL that stands for its remotes."""
        scm = SCM(".")
        own = {"cache": {"dir": str(Path.home() / "cache")}}  # whatever the commit names
        self.repo = Repo(folder, fs=GitFileSystem(scm=scm, rev=commit), scm=scm, config=own)
        self.repo.dvcignore = None  # what one commit ignores is no matter of where data is
        self.remotes: dict[str | None, Any] = {}
        self.stand_in = STAND_IN if store else None
        if store:
            self.repo.config["remote"][STAND_IN] = {"url": store}

    def load_output(self, pointer: str, text: str) -> Any:
        """Return what a pointer with this text names, as DVC has read it."""
        file = load_file(self.repo, pointer)
        content = file.validate(parse_yaml(text, file.path), file.path)
        (output,) = file.LOADER.load_stage(file, content, text).outs
        return output

    def find_remote(self, name: str | None) -> Any:
        """Return the remote of this name, or the default one. Raise NotKept unless it is on S3."""
        name = self.stand_in or name
        if name not in self.remotes:
            self.remotes[name] = self.repo.cloud.get_remote(name)
        remote = self.remotes[name]
        if remote.fs.protocol != "s3":
            raise NotKept(f"its remote {remote.name!r} is {remote.fs.protocol}, and not S3")
        if remote.fs.version_aware or remote.worktree:
            raise NotKept(f"its remote {remote.name!r} is version_aware: no key is by hash")
        return remote


def answer(question: dict[str, Any], projects: dict[tuple[str, ...], Project]) -> object:
    """Return a place, or why DVC names none. Projects are kept for the next question."""
    pointer = f"/{question['path']}"
    folder = posixpath.dirname(pointer)
    store = question["store"]
    key = folder, store or "", *question["config"]
    try:
        if key not in projects:
            projects[key] = Project(question["commit"], folder, store)
        return find_place(projects[key], pointer, question["text"], question["oids"])
    except NoRemoteError:
        return ".dvc/config names no default remote"
    except Exception as error:  # whatever DVC raises is its answer
        return describe(error)


def describe(error: BaseException) -> str:
    """Return in one line what DVC says; of a pointer that its schema refuses, with the cause."""
    said = " ".join(str(error).split()) or type(error).__name__
    cause = error.__cause__ if isinstance(error, YAMLValidationError) else None
    return f"{said.rstrip('.')}: {describe(cause)}" if cause else said


def find_place(project: Project, pointer: str, text: str, oids: list[str]) -> dict[str, object]:
    """Return where DVC keeps the data of a pointer with this text. Raise what DVC raises."""
    output = project.load_output(pointer, text)
    refuse_foreign_data(output)
    remote = project.find_remote(output.remote)
    objects = remote.legacy_odb if output.hash_name in LEGACY_HASH_NAMES else remote.odb
    settings = get_fs_config(project.repo.config, name=remote.name)
    bucket, _, key = objects.oid_to_path(output.hash_info.value).partition("/")
    return {
        "endpoint": settings.get("endpointurl"),
        "bucket": bucket,
        "key": key,
        "keys": [objects.oid_to_path(oid).partition("/")[2] for oid in oids],
        "hash": output.hash_name,
        "store": f"{settings.get('endpointurl')} {objects.path} {output.hash_name}",
        "output": output.fs_path.lstrip("/"),
    }


def refuse_foreign_data(output: Any) -> None:
    """Raise NotKept when DVC does not keep the data in a remote of this repository."""
    if not output.use_cache:
        raise NotKept("it says `cache: false`: git has the data")
    if output.stage.is_repo_import:
        raise NotKept("it was imported from another repository, which has the data")
    if not output.hash_info:
        raise NotKept("it names no hash")


def main() -> None:
    projects: dict[tuple[str, ...], Project] = {}
    with redirect_stdout(sys.stderr):  # whatever DVC prints is no answer
        for line in sys.stdin:
            answers = [answer(question, projects) for question in json.loads(line)]
            print(json.dumps(answers), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
