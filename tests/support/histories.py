"""A git repository with versions of one dataset, without a server: each commit a minute later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.model import Access

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

    def __init__(self, folder: Path, dataset: str) -> None:
        self.folder = folder
        self.pointer = f"{dataset}.dvc"
        self.lab = build_lab(folder, dataset)
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

    def write_pointer(self, number: int) -> dict[str, str]:
        """Return the pointer's file of this version."""
        name = Path(self.pointer).stem
        return {self.pointer: POINTER.format(md5=md5_of(number), size=number, name=name)}

    def commit_version(self, number: int, trailers: str = "") -> str:
        return self.commit(f"version {number}\n\n{trailers}", self.write_pointer(number))

    def commit_run(self, run: str, number: int, parent: int) -> str:
        """Commit a version as a run does: it names itself, and the version that it started from."""
        said = {"Run-Id": run, "Dag-Id": "dataset_pipeline", "Data-Parent": md5_of(parent)}
        return self.commit_version(number, "\n".join(f"{k}: {v}" for k, v in said.items()))

    def merge(self, branch: str, *how: str) -> str:
        """Merge a branch and return the commit."""
        self.git("merge", "--quiet", "--no-ff", "--no-edit", *how, branch)
        return self.git("rev-parse", "HEAD")

    def merge_by_hand(self, branch: str, number: int, *how: str) -> str:
        """Merge a branch with a version that is none of both sides'. Return the commit."""
        flags = ("--no-ff", "--no-commit", "--strategy=ours", *how)
        self.git("merge", "--quiet", *flags, branch)
        return self.commit("merged by hand", self.write_pointer(number))


def build_lab(folder: Path, dataset: str) -> Lab:
    given: dict[str, Any] = dict.fromkeys((one.name for one in fields(Access)), "")
    given |= {"git_url": str(folder), "git_user": "lab", "dataset_path": dataset}
    return Lab(**given)
