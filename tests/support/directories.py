"""A clone whose DVC remote is on the lab's S3 server, and directories to store in it."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_steps import pointer
from dataset_steps.content import Content
from dataset_steps.remote import Remote
from dataset_steps.transfer import FastStore
from lab import layout
from tests.support.steps import run_dvc
from tests.support.stores import Project, Stores

if TYPE_CHECKING:
    import pytest

PATH = "data"
SERIAL = itertools.count()


@dataclass(frozen=True)
class Clone:
    """A clone with a data set, which may be a directory, and a remote of its own in the bucket."""

    project: Project
    folder: Path
    prefix: str

    @property
    def data(self) -> Path:
        return self.folder / PATH

    @property
    def pointer_file(self) -> Path:
        return self.folder / f"{PATH}.dvc"

    @property
    def remote(self) -> Remote:
        """Return the remote as a step has it."""
        return Remote(self.folder)

    def fill(self, *names: str, size: int = 0) -> Path:
        """Make files that hold their own names, and random bytes after them."""
        chance = random.Random(self.prefix)
        for name in names:
            path = self.data / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() + chance.randbytes(size))
        return self.data

    def publish(self, **options: Any) -> Content:
        """Store the directory as it is now, and write its pointer."""
        content = self.remote.measure(PATH, self.data)
        self.remote.store(content, self.data, **options)
        pointer.write(self.pointer_file, content.pointer)
        return content

    def download(self) -> dict[str, bytes]:
        """Have the data be what the pointer names; return its files."""
        self.pull()
        return self.read()

    def pull(self) -> None:
        """Have the data be what the pointer names."""
        self.remote.download(pointer.read(self.pointer_file), PATH, self.data)

    def read(self) -> dict[str, bytes]:
        """Return the files of the data set, by their names."""
        files = (path for path in self.data.rglob("*") if not path.is_dir())
        return {path.relative_to(self.data).as_posix(): path.read_bytes() for path in files}

    def run_dvc(self, *arguments: str) -> str:
        """Run the plain `dvc` command in the clone."""
        return run_dvc(self.folder, self.project, *arguments)

    def list_objects(self) -> dict[str, bytes]:
        """Return the objects of the remote, by their keys in it."""
        client, found = self.project.stores.client, {}
        listed = client.get_paginator("list_objects_v2").paginate(
            Bucket=layout.BUCKET, Prefix=f"{self.prefix}/"
        )
        for item in itertools.chain.from_iterable(page.get("Contents", ()) for page in listed):
            body = client.get_object(Bucket=layout.BUCKET, Key=item["Key"])["Body"].read()
            found[item["Key"].removeprefix(f"{self.prefix}/")] = body
        return found

    def key(self, md5: str, layout_of: str = "files/md5/") -> str:
        return f"{self.prefix}/{layout_of}{md5[:2]}/{md5[2:]}"

    def put(self, md5: str, content: bytes, layout_of: str = "files/md5/") -> None:
        """Replace an object of the remote, as somebody else than a step."""
        self.project.stores.client.put_object(
            Bucket=layout.BUCKET, Key=self.key(md5, layout_of), Body=content
        )

    def delete(self, md5: str) -> None:
        """Delete an object of the remote, as somebody else than a step."""
        self.project.stores.client.delete_object(Bucket=layout.BUCKET, Key=self.key(md5))


def make_clone(
    stores: Stores, folder: Path, patch: pytest.MonkeyPatch, *options: str, prefix: str = ""
) -> Clone:
    """Make a clone, and give this process the environment of a step."""
    number = next(SERIAL)
    clone = Clone(
        Project(stores, f"lab/directories-{number}", folder / "shared"),
        folder / f"clone-{number}",
        prefix or f"directories-{os.getpid()}-{number}",
    )
    (clone.folder / ".dvc").mkdir(parents=True)
    url = f"url = s3://{layout.BUCKET}/{clone.prefix}"
    text = "\n".join(["[core]", "remote = s3", "['remote \"s3\"']", url, *options, ""])
    (clone.folder / ".dvc" / "config").write_text(text, encoding="utf-8")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "--quiet"], cwd=clone.folder, env=env, check=True)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in environment(clone).items():
        patch.setenv(name, value)
    return clone


def environment(clone: Clone) -> dict[str, str]:
    """Return what a step's environment says of S3 and of DVC's folders."""
    step = clone.project.environment("none")
    names = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    places = {name: str(clone.folder.parent / name) for name in names}
    return {name: text for name, text in step.items() if name.startswith("AWS_")} | places


def count_requests(patch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Have each request for an object noted: obstore's as put, head and get, boto3's as send."""
    noted: dict[str, list[str]] = {name: [] for name in ("put", "head", "get", "send")}

    def note(owner: type, name: str, key_of: Callable[[Any], str]) -> None:
        function = getattr(owner, name)

        def noting(self: Any, what: Any, *others: Any) -> Any:
            noted[name].append(key_of(what).rpartition("files/md5/")[2].replace("/", ""))
            return function(self, what, *others)

        patch.setattr(owner, name, noting)

    for name in ("put", "head", "get"):
        note(FastStore, name, str)
    note(Remote, "send", lambda named: str(named.md5))
    return noted
