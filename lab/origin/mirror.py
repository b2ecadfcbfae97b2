"""The origin's branches and tags as a bare repository, and the pointers of all their commits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from lab.client.git import read_texts
from lab.client.versions import list_configs
from lab.data_sets import POINTER
from lab.errors import LabError
from lab.shell import run

NAME = "repository.git"
SECONDS = 7200  # a large repository over a slow line
READ_SECONDS = 600
# Of a pipeline DVC keeps the hashes in dvc.lock; dvc.yaml says of an output what else there is.
FILES = ("*.dvc", "dvc.yaml", "dvc.lock")
PATHS = tuple(f":(glob)**/{name}" for name in FILES)
# A server that is silent for a minute is gone. A lab's own refuses objects that git fsck refuses.
SETTINGS = {"http.lowSpeedLimit": "1", "http.lowSpeedTime": "60", "fetch.fsckObjects": "true"}
ACCESS = "git clone of it must work in this shell without a question: see to that, then try again"
# How tokens begin that stand in the place of a user's name.
TOKENS = ("ghp_", "gho_", "ghs_", "github_pat_", "glpat-")
NO_WAY = "lab init without it; `first` in lab.toml names data without a history"
BRANCHES = ("main", "master")


@dataclass(frozen=True)
class Pointer:
    """A file of DVC, and a commit that has it as it is."""

    commit: str
    path: str
    text: str | None  # None: DVC reads it together with another file of the commit
    config: tuple[str, ...]  # blobs: equal where the configuration is
    newest: bool  # it is of the newest commit of the default branch


# --- Where it is ----------------------------------------------------------------------------------


def normalize_url(url: str) -> str:
    """Return the origin's URL; of a folder on this machine the whole path.

    Raises LabError for what git would not take, or what may be written to no file.
    """
    parts = urlsplit(url) if "://" in url else None
    if not url or url.startswith("-") or "::" in url.partition("/")[0]:
        raise LabError(f"{url!r} is no URL of a repository", "give what git clone takes")
    if parts and (parts.password or str(parts.username).startswith(TOKENS)):
        raise LabError(
            "the URL of the origin has a password, which a file of the project would hold",
            "leave it out: a credential helper of git has it, or use SSH",
        )
    path = Path(url).expanduser()
    return str(path.absolute()) if parts is None and path.exists() else url


def find_folder(url: str) -> Path | None:
    """Return the folder of an origin on this machine, or None."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path) if parts.scheme == "file" else url)
    return path if path.is_absolute() and path.is_dir() else None


# --- The clone ------------------------------------------------------------------------------------


def ensure_mirror(url: str, folder: Path, env: Mapping[str, str]) -> Path:
    """Clone all branches and tags into a folder unless it has them; return the repository's path.

    The person's environment has the access to the origin. Raises LabError.
    """
    mirror = folder / NAME
    if not mirror.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix="part-") as part:
            clone(url, Path(part) / NAME, env)
            (Path(part) / NAME).replace(mirror)
    if (known := git(mirror, "config", "remote.origin.url").strip()) != url:
        raise LabError(f"{mirror} is a copy of {known}", f"remove {folder}: it holds copies only")
    return mirror


def clone(url: str, into: Path, env: Mapping[str, str]) -> None:
    """Clone a repository, bare and without hooks. Raises LabError."""
    settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
    words = ["--quiet", "--bare", "--no-local", "--template=", *settings, "--", url, str(into)]
    asking = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "LC_ALL": "C"}
    ssh = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=20"}
    if {"GIT_SSH", "GIT_SSH_COMMAND"} & {*env}:
        ssh = {}
    try:
        run(["git", "clone", *words], timeout=SECONDS, fix=ACCESS, env={**env, **asking, **ssh})
    except LabError as error:
        error.what = f"git can't clone {url}: {find_cause(error)}"
        raise
    if git(into, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise LabError(f"{url} lacks a part of its history", "git fetch --unshallow there")
    if (kind := git(into, "rev-parse", "--show-object-format").strip()) != "sha1":
        raise LabError(f"{url} names objects by {kind}, and the lab's git server by sha1", NO_WAY)


def find_cause(error: LabError) -> str:
    """Return the first line that git has printed: those after it are general."""
    lines = (line.strip() for line in error.output.splitlines()[1:])
    said = (line for line in lines if line and not line.lower().startswith("warning"))
    return next((line.removeprefix("fatal: ") for line in said), error.what)


def git(mirror: Path, *words: str, stdin: str = "") -> str:
    """Run git in the mirror and return its output; no configuration of the person is read."""
    fix = f"remove {mirror.parent}, then lab fetch"
    env = environment(mirror)
    return run(["git", *words], timeout=READ_SECONDS, fix=fix, cwd=mirror, env=env, stdin=stdin)


def environment(mirror: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(mirror),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C",
    }


# --- What it has ----------------------------------------------------------------------------------


def list_refs(mirror: Path, kind: str) -> tuple[str, ...]:
    """List the names of all branches ("heads") or tags ("tags")."""
    found = git(mirror, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/{kind}")
    return tuple(found.splitlines())


def find_default_branch(mirror: Path, url: str) -> str:
    """Return the branch that a clone of the origin checks out. Raises LabError without a branch."""
    branches = list_refs(mirror, "heads")
    words = ("for-each-ref", "--format=%(HEAD)%(refname:lstrip=2)", "refs/heads")
    current = [line[1:] for line in git(mirror, *words).splitlines() if line.startswith("*")]
    usual = [name for name in BRANCHES if name in branches]
    if not branches:
        raise LabError(f"{url} has no commit on a branch", "push one there, or lab init without it")
    if not (current or usual or len(branches) == 1):
        what = f"{url} has no default branch among {', '.join(branches)}"
        raise LabError(what, "let its HEAD be one: git symbolic-ref HEAD refs/heads/NAME there")
    return [*current, *usual, *branches][0]


def list_commits(mirror: Path) -> list[str]:
    """List the commits of all branches and tags, the newest first."""
    return git(mirror, "rev-list", "--date-order", "--branches", "--tags").splitlines()


def list_pointers(mirror: Path, url: str, branch: str) -> list[Pointer]:
    """List the files of DVC of the newest commit, and each version that any commit brought.

    Raises LabError when the newest commit has no DVC.
    """
    head = git(mirror, "rev-parse", f"refs/heads/{branch}").strip()
    paths = git(mirror, "ls-tree", "-r", "-z", "--name-only", head).split("\0")
    if not any(PurePosixPath(path).parent.name == ".dvc" for path in paths):
        raise LabError(
            f"{url} is no DVC repository: the newest commit of {branch} has no .dvc/config",
            NO_WAY,
        )
    own = [(head, path) for path in paths if is_file_of_dvc(path)]
    changed = list(read_changes(mirror, list_commits(mirror)))
    found = dict.fromkeys([*own, *changed])
    return read_pointers(mirror, list(found), head)


def is_file_of_dvc(path: str) -> bool:
    pure = PurePosixPath(path)
    return ".dvc" not in pure.parts and any(pure.match(name) for name in FILES)


def read_changes(mirror: Path, commits: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a commit and a path for each file of DVC that the commit has brought or changed."""
    words = ("diff-tree", "--stdin", "-r", "-m", "--root", "-z", "--no-renames", "--name-only")
    flags = ("--diff-filter=AMT", "--", *PATHS)
    said = git(mirror, *words, *flags, stdin="".join(f"{commit}\n" for commit in commits))
    known, commit = set(commits), ""
    for part in said.split("\0"):
        if part in known:
            commit = part
        elif is_file_of_dvc(part):
            yield commit, part


def read_pointers(mirror: Path, found: Sequence[tuple[str, str]], head: str) -> list[Pointer]:
    """Return these files with their texts; of a pipeline, its dvc.yaml once for each commit."""
    places = list(dict.fromkeys((commit, find_reader(path)) for commit, path in found))
    names = [f"{c}:{path}" for c, path in places if path.endswith(POINTER)]
    read = read_texts(names, mirror, environment(mirror), READ_SECONDS)
    texts = dict(zip(names, read, strict=True))
    configs = {path: list_configs(path) for _, path in places}
    blobs = find_blobs(mirror, [f"{c}:{each}" for c, path in places for each in configs[path]])
    return [
        Pointer(
            commit,
            path,
            texts.get(f"{commit}:{path}"),
            tuple(blobs[f"{commit}:{each}"] for each in configs[path]),
            commit == head,
        )
        for commit, path in places
    ]


def find_reader(path: str) -> str:
    """Return the file by which DVC reads a file of DVC."""
    pure = PurePosixPath(path)
    return str(pure.with_name("dvc.yaml")) if pure.name == "dvc.lock" else path


def find_blobs(mirror: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the blob of each name, or an empty text where there is no file."""
    words = ("cat-file", "--batch-check=%(objecttype) %(objectname)")
    lines = git(mirror, *words, stdin="".join(f"{name}\n" for name in names)).splitlines()
    blobs = (line.removeprefix("blob ") if line.startswith("blob ") else "" for line in lines)
    return dict(zip(names, blobs, strict=True))
