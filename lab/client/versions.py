"""Reading the datasets repository as anybody would: git, the pointer, DVC. No code of the steps."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.client import s3
from lab.client.git import git
from lab.errors import CommitError, LabError, ProofError
from lab.model import Access, Checkout, Model, Version
from lab.shell import run

DVC_SECONDS = 1800
MODEL, METRICS = "models/attrition.joblib", "models/attrition.metrics.json"
SHOWN = "%H%x1f%(trailers:only,unfold,separator=%x1e)%x1d"


@contextmanager
def clone(lab: Access) -> Iterator[Path]:
    """A fresh clone in a temporary folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lab-clone-") as folder:
        path = Path(folder) / "datasets"
        git(lab, "clone", "--quiet", lab.git_url, path, cwd=Path(folder))
        yield path


def resolve(lab: Access, folder: Path, commit: str) -> str:
    """The full name of a commit. Raises CommitError when the repository has none of that name."""
    name = "HEAD" if commit == "main" else commit
    if name.startswith("-"):
        raise CommitError(f"{commit!r} is not a commit", "give a commit's hash")
    try:
        return git(
            lab, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", cwd=folder
        ).strip()
    except LabError as error:
        raise CommitError(
            f"the datasets repository has no commit {commit!r}",
            f"git log in a clone of {lab.git_url} shows the commits there are",
        ) from error


def history(lab: Access, commit: str) -> list[Version]:
    """All versions up to a commit, the newest first. Raises CommitError."""
    with clone(lab) as folder:
        return versions(lab, folder, resolve(lab, folder, commit))


def model(lab: Access, commit: str) -> Model:
    """The newest version of the model up to a commit. Raises CommitError."""
    with clone(lab) as folder:
        newest = versions(lab, folder, resolve(lab, folder, commit), MODEL)[0]
        (text,) = contents(lab, folder, [f"{newest.commit}:{METRICS}"])
    return Model(
        newest.commit,
        newest.trailers.get("Data-Commit"),
        newest.md5,
        newest.size,
        json.loads(text),
        newest.trailers,
    )


def versions(lab: Access, folder: Path, commit: str, path: str | None = None) -> list[Version]:
    """The commits up to `commit` that changed a pointer, and what it says in each.

    The pointer is the dataset's unless `path` names another file that DVC keeps.
    """
    pointer = f"{path or lab.dataset_path}.dvc"
    log = git(lab, "log", f"--format={SHOWN}", commit, "--", pointer, cwd=folder)
    rows = [row.strip("\n").split("\x1f") for row in log.split("\x1d") if row.strip()]
    if not rows:
        raise CommitError(f"{commit} has no {pointer}", "choose a commit that has it")
    texts = contents(lab, folder, [f"{name}:{pointer}" for name, _ in rows])
    return [
        version_of(name, text, trailers) for (name, trailers), text in zip(rows, texts, strict=True)
    ]


def contents(lab: Access, folder: Path, names: list[str]) -> list[str]:
    """The text of each object, by one git process. Raises ProofError for a missing one."""
    out = git(lab, "cat-file", "--batch", cwd=folder, stdin="\n".join(names) + "\n").encode()
    texts = []
    for name in names:
        head, _, rest = out.partition(b"\n")
        if not re.fullmatch(rb"[0-9a-f]+ blob \d+", head):
            raise ProofError(f"{name} is not a file of that commit", "look at the commit with git")
        size = int(head.split()[2])  # of bytes, not of characters
        texts.append(rest[:size].decode())
        out = rest[size + 1 :]
    return texts


def version_of(commit: str, text: str, trailers: str) -> Version:
    """A version, read from its pointer's text. Raises ProofError when that is no pointer."""
    import yaml

    try:
        (out,) = yaml.safe_load(text)["outs"]
        md5, size = str(out["md5"]), int(out["size"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ProofError(
            f"the pointer at {commit} is not one: {error}", "restore it by git"
        ) from error
    pairs = (line.partition(": ") for line in trailers.split("\x1e") if line)
    return Version(commit, md5, size, {key: value for key, _, value in pairs})


@contextmanager
def checkout(lab: Access, commit: str, *paths: str) -> Iterator[Checkout]:
    """That commit in a fresh clone, its dataset or these paths pulled by the `dvc` command line."""
    with clone(lab) as folder:
        git(lab, "checkout", "--quiet", resolve(lab, folder, commit), cwd=folder)
        dvc_pull(lab, folder, *paths)
        yield Checkout(folder)


def dvc_pull(lab: Access, folder: Path, *paths: str) -> None:
    """The clone's work tree holds its dataset, or these files that DVC keeps.

    Raises ProofError when DVC can't bring them.
    """
    pointers = [f"{path}.dvc" for path in paths or (lab.dataset_path,)]
    try:
        run(
            [sys.executable, "-m", "dvc", "pull", "--quiet", *pointers],
            timeout=DVC_SECONDS,
            cwd=folder,
            env=dvc_environment(lab, folder.parent),
        )
    except LabError as error:
        raise ProofError(
            f"dvc pull does not bring {', '.join(pointers)} back: {error.what}",
            "lab verify says of each version whether its object is there",
        ) from error


def dvc_environment(lab: Access, folder: Path) -> dict[str, str]:
    """DVC reads no configuration and no cache but its own clone's."""
    places = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "DVC_NO_ANALYTICS": "1",
        **{name: str(folder / name.lower()) for name in places},
        **s3.environment(lab),
    }


def remote_of(lab: Access, folder: Path, commit: str) -> tuple[str, str]:
    """Bucket and prefix of the default DVC remote at a commit, from `.dvc/config` alone.

    Raises ProofError when it names none.
    """
    from configparser import ConfigParser, Error

    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(git(lab, "show", f"{commit}:.dvc/config", cwd=folder))
        name = parser.get("core", "remote")
        url = parser.get(f"'remote \"{name}\"'", "url")
    except Error as error:
        raise ProofError(f".dvc/config at {commit}: {error}", "restore it by git") from error
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix.rstrip("/")


def object_key(prefix: str, version: Version) -> str:
    """Where DVC 3 keeps a file's bytes in a remote."""
    path = f"files/md5/{version.md5[:2]}/{version.md5[2:]}"
    return f"{prefix}/{path}" if prefix else path
