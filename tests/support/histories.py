"""A git repository with versions of data sets, without a server: each commit a minute later."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.data_sets import DATASET
from lab.lab import Lab
from lab.model import Access

NOTHING: Mapping[str, str] = MappingProxyType({})
BEGIN, MINUTE = 1_800_000_000, 60  # seconds
POINTER = """outs:
- md5: {md5}
  size: {size}
  hash: md5
  path: {name}
"""


def md5_of(number: int) -> str:
    """Return the MD5 that a version of this number names: no number to YAML."""
    return f"{number:032x}".replace("0", "a", 20)


class Repository:
    """A repository in which versions are numbers: their size, and their MD5 in another form."""

    def __init__(self, folder: Path, dataset: str, **declared: str) -> None:
        self.folder = folder
        self.dataset = dataset
        self.pointer = f"{dataset}.dvc"
        self.lab = build_lab(folder, dataset, declared)
        self.clock = BEGIN
        folder.mkdir(exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        self.clock += MINUTE
        date = {f"GIT_{who}_DATE": f"{self.clock} +0000" for who in ("AUTHOR", "COMMITTER")}
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true"}
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(
            ["git", *who, *arguments],
            cwd=self.folder,
            env={**os.environ, **own, **date, **(env or {})},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, message: str, files: dict[str, str]) -> str:
        """Commit the files and return the new commit's hash."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def write_pointer(self, number: int, path: str = "") -> dict[str, str]:
        """Return the pointer's file of this version, of the dataset or of the data at `path`."""
        path = path or self.dataset
        name = Path(path).name
        return {f"{path}.dvc": POINTER.format(md5=md5_of(number), size=number, name=name)}

    def commit_version(self, number: int, trailers: str = "", path: str = "") -> str:
        return self.commit(f"version {number}\n\n{trailers}", self.write_pointer(number, path))

    def commit_run(self, run: str, number: int, parent: int) -> str:
        """Commit a version as a run does: it names itself, and the version that it started from."""
        return self.publish(run, {self.dataset: (number, parent)})

    def publish(
        self, run: str, versions: Mapping[str, tuple[int, int]], read: Mapping[str, str] = NOTHING
    ) -> str:
        """Commit versions of several data sets as a run does, each by its path with its parent.

        `read` names the commit of each data set that the run has read only.
        """
        files: dict[str, str] = {}
        said = [f"Run-Id: {run}", "Dag-Id: dataset_pipeline", "Dag-Version: c0ffee"]
        for path, (number, parent) in versions.items():
            files |= self.write_pointer(number, path)
            md5s = f"Data-Md5: {md5_of(number)}", f"Data-Parent: {md5_of(parent)}"
            said += [f"Data-Path: {path}", md5s[0], f"Data-Size: {number}", md5s[1]]
        for path, commit in read.items():
            (line,) = re.findall("md5: (.+)", self.git("show", f"{commit}:{path}.dvc"))
            said += [f"From-Path: {path}", f"From-Commit: {commit}", f"From-Md5: {line}"]
        return self.commit(f"data: publish {run}\n\n" + "\n".join(said), files)

    def merge(self, branch: str, *how: str) -> str:
        """Merge a branch and return the commit."""
        self.git("merge", "--quiet", "--no-ff", "--no-edit", *how, branch)
        return self.git("rev-parse", "HEAD")

    def merge_by_hand(self, branch: str, number: int, *how: str) -> str:
        """Merge a branch with a version that is none of both sides'. Return the commit."""
        flags = ("--no-ff", "--no-commit", "--strategy=ours", *how)
        self.git("merge", "--quiet", *flags, branch)
        return self.commit("merged by hand", self.write_pointer(number))


def build_lab(folder: Path, dataset: str, declared: Mapping[str, str] = NOTHING) -> Lab:
    given: dict[str, Any] = dict.fromkeys((one.name for one in fields(Access)), "")
    given |= {"git_url": str(folder), "git_user": "lab", "dataset_path": dataset}
    return Lab(**{**given, "dataset_name": DATASET, "data_sets": dict(declared)})
