"""Reading the datasets repository as anybody can, by git and DVC: no code of the steps."""

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
from lab.client.git import run_git
from lab.errors import CommitError, LabError, ProofError
from lab.model import Access, Checkout, Model, Version
from lab.shell import run

DVC_SECONDS = 1800
MODEL, METRICS = "models/attrition.joblib", "models/attrition.metrics.json"
LOG_FORMAT = "%H%x1f%(trailers:only,unfold,separator=%x1e)%x1d"


@contextmanager
def temporary_clone(lab: Access, url: str | None = None) -> Iterator[Path]:
    """Yield a fresh clone in a temporary folder, and delete it afterwards.

    It is of the datasets repository unless `url` is another one's.
    """
    with tempfile.TemporaryDirectory(prefix="lab-clone-") as folder:
        path = Path(folder) / "datasets"
        run_git(lab, "clone", "--quiet", url or lab.git_url, path, cwd=Path(folder))
        yield path


def resolve_commit(lab: Access, folder: Path, commit: str) -> str:
    """Return the full hash of a commit. Raises CommitError when the repository has no such one."""
    name = "HEAD" if commit == "main" else commit
    if name.startswith("-"):
        raise CommitError(f"{commit!r} is not a commit", "give a commit's hash")
    try:
        return run_git(
            lab, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", cwd=folder
        ).strip()
    except LabError as error:
        raise CommitError(
            f"the datasets repository has no commit {commit!r}",
            f"git log in a clone of {lab.git_url} shows the commits there are",
        ) from error


def read_history(lab: Access, commit: str) -> list[Version]:
    """List all versions up to a commit, the newest first. Raises CommitError."""
    with temporary_clone(lab) as folder:
        return list_versions(lab, folder, resolve_commit(lab, folder, commit))


def read_model(lab: Access, commit: str) -> Model:
    """Return the newest version of the model up to a commit. Raises CommitError."""
    with temporary_clone(lab) as folder:
        newest = list_versions(lab, folder, resolve_commit(lab, folder, commit), MODEL)[0]
        (text,) = read_blobs(lab, folder, [f"{newest.commit}:{METRICS}"])
    return Model(
        newest.commit,
        newest.trailers.get("Data-Commit"),
        newest.md5,
        newest.size,
        json.loads(text),
        newest.trailers,
    )


def list_versions(lab: Access, folder: Path, commit: str, path: str | None = None) -> list[Version]:
    """List the commits up to `commit` that changed a pointer, and what it says in each.

    The pointer is the dataset's unless `path` names another file that DVC tracks.
    """
    pointer = f"{path or lab.dataset_path}.dvc"
    log = run_git(lab, "log", f"--format={LOG_FORMAT}", commit, "--", pointer, cwd=folder)
    rows = [row.strip("\n").split("\x1f") for row in log.split("\x1d") if row.strip()]
    if not rows:
        raise CommitError(f"{commit} has no {pointer}", "choose a commit that has it")
    texts = read_blobs(lab, folder, [f"{name}:{pointer}" for name, _ in rows])
    return [
        version_from_pointer(name, text, trailers)
        for (name, trailers), text in zip(rows, texts, strict=True)
    ]


def read_blobs(lab: Access, folder: Path, names: list[str]) -> list[str]:
    """Return the text of each blob, by one git process. Raises ProofError for a missing one."""
    out = run_git(lab, "cat-file", "--batch", cwd=folder, stdin="\n".join(names) + "\n").encode()
    texts = []
    for name in names:
        head, _, rest = out.partition(b"\n")
        if not re.fullmatch(rb"[0-9a-f]+ blob \d+", head):
            raise ProofError(f"{name} is not a file of that commit", "look at the commit with git")
        size = int(head.split()[2])  # of bytes, not of characters
        texts.append(rest[:size].decode())
        out = rest[size + 1 :]
    return texts


def version_from_pointer(commit: str, text: str, trailers: str) -> Version:
    """Parse a version from its pointer's text. Raises ProofError when that is no pointer."""
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
def temporary_checkout(lab: Access, commit: str, *paths: str) -> Iterator[Checkout]:
    """Yield the commit in a fresh clone, its dataset or these paths pulled by the `dvc` command."""
    with temporary_clone(lab) as folder:
        run_git(lab, "checkout", "--quiet", resolve_commit(lab, folder, commit), cwd=folder)
        dvc_pull(lab, folder, *paths)
        yield Checkout(folder)


def dvc_pull(lab: Access, folder: Path, *paths: str) -> None:
    """Pull the dataset, or these files that DVC tracks, into the clone's work tree.

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
    """Return DVC's environment: no configuration and no cache but those of its clone."""
    places = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "DVC_NO_ANALYTICS": "1",
        **{name: str(folder / name.lower()) for name in places},
        **s3.environment(lab),
    }


def read_remote(lab: Access, folder: Path, commit: str) -> tuple[str, str]:
    """Read bucket and prefix of the default DVC remote at a commit, from `.dvc/config` alone.

    Raises ProofError when it names none.
    """
    from configparser import ConfigParser, Error

    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(run_git(lab, "show", f"{commit}:.dvc/config", cwd=folder))
        name = parser.get("core", "remote")
        url = parser.get(f"'remote \"{name}\"'", "url")
    except Error as error:
        raise ProofError(f".dvc/config at {commit}: {error}", "restore it by git") from error
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix.rstrip("/")


def object_key(prefix: str, md5: str) -> str:
    """Return the key under which DVC 3 stores the bytes of this MD5 in a remote."""
    path = f"files/md5/{md5[:2]}/{md5[2:]}"
    return f"{prefix}/{path}" if prefix else path
