"""Reading the datasets repository as anybody can, by git and DVC: no code of the steps."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lab.client import dvc_process
from lab.client.git import read_objects, run_git
from lab.client.history import Commit, History, Pointer
from lab.errors import CommitError, LabError, ProofError
from lab.model import Access, Checkout, Model, Version

MODEL, METRICS = "models/attrition.joblib", "models/attrition.metrics.json"
LOG_FORMAT = "%H%x1f%P%x1f%an <%ae> %at%x1f%(trailers:only,unfold,separator=%x1e)%x1d"


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
    """Return the full hash of a commit: of a branch of the server, or of what git calls so.

    Raises CommitError when the repository has no such one.
    """
    if commit.startswith("-"):
        raise CommitError(f"{commit!r} is not a commit", "give a commit's hash")
    branch = commit.removeprefix("refs/heads/")
    for name in (f"refs/remotes/origin/{branch}", commit):
        try:
            words = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            return run_git(lab, *words, cwd=folder).strip()
        except LabError:
            continue
    raise CommitError(
        f"the datasets repository has no commit {commit!r}",
        f"git log --all in a clone of {lab.git_url} shows the commits there are",
    )


def read_version(lab: Access, commit: str) -> Version:
    """Return the version of the dataset at a commit. Raises CommitError when it has none."""
    with temporary_clone(lab) as folder:
        return read_graph(lab, folder, commit).version


def read_history(lab: Access, commit: str) -> list[Version]:
    """List the version at a commit and all before it, the newest first. Raises CommitError."""
    with temporary_clone(lab) as folder:
        return read_graph(lab, folder, commit).versions


def read_model(lab: Access, commit: str) -> Model:
    """Return the version of the model at a commit. Raises CommitError when it has none."""
    with temporary_clone(lab) as folder:
        newest = read_graph(lab, folder, commit, "model", MODEL).version
        (text,) = read_blobs(lab, folder, [f"{newest.commit}:{METRICS}"])
    return Model(
        newest.commit,
        newest.trailers.get("Data-Commit"),
        newest.md5,
        newest.size,
        json.loads(text),
        newest.trailers,
    )


# --- The graph of commits -------------------------------------------------------------------------


def read_graph(
    lab: Access, folder: Path, commit: str, kind: str = "dataset", path: str | None = None
) -> History:
    """Read the history of a pointer up to a commit. Raises CommitError without such a commit.

    The pointer is the dataset's unless `path` names another file that DVC tracks.
    """
    pointer = f"{path or lab.dataset_path}.dvc"
    head = resolve_commit(lab, folder, commit)
    log = run_git(lab, "log", "--date-order", f"--format={LOG_FORMAT}", head, cwd=folder)
    rows = [row.strip("\n").split("\x1f") for row in log.split("\x1d") if row.strip()]
    files = find_blobs(lab, folder, [row[0] for row in rows], [pointer, *list_configs(pointer)])
    found, reasons = read_pointers(lab, folder, {blob for blob, *_ in files if blob})
    commits: dict[str, Commit] = {}
    pointers: dict[str, Pointer] = {}
    broken: dict[str, str] = {}
    for (name, parents, author, trailers), (blob, *config) in zip(rows, files, strict=True):
        said = parse_trailers(trailers)
        commits[name] = Commit(name, tuple(parents.split()), author, said, tuple(config))
        if blob in found:
            pointers[name] = found[blob]
        if blob in reasons:
            broken[name] = reasons[blob]
    return History(commit, kind, pointer, commits, pointers, broken)


def list_configs(pointer: str) -> list[str]:
    """List where DVC's configuration may be: in the pointer's folder or in one above it."""
    return [str(above / ".dvc" / "config") for above in PurePosixPath(pointer).parents]


def find_blobs(
    lab: Access, folder: Path, commits: Sequence[str], paths: Sequence[str]
) -> list[list[str]]:
    """Return the blob at each path of each commit, or an empty string where there is no file."""
    names = "".join(f"{commit}:{path}\n" for commit in commits for path in paths)
    words = ("cat-file", "--batch-check=%(objecttype) %(objectname)")
    lines = run_git(lab, *words, cwd=folder, stdin=names).split("\n")[:-1]
    blobs = [line.removeprefix("blob ") if line.startswith("blob ") else "" for line in lines]
    return [blobs[at : at + len(paths)] for at in range(0, len(blobs), len(paths))]


def read_pointers(
    lab: Access, folder: Path, blobs: set[str]
) -> tuple[dict[str, Pointer], dict[str, str]]:
    """Return what each blob says, and for each that is no pointer why."""
    pointers, reasons = {}, {}
    ordered = sorted(blobs)
    for blob, text in zip(ordered, read_blobs(lab, folder, ordered), strict=True):
        try:
            pointers[blob] = parse_pointer(blob, text)
        except ValueError as error:
            reasons[blob] = str(error)
    return pointers, reasons


def read_blobs(lab: Access, folder: Path, names: list[str]) -> list[str]:
    """Return the text of each blob, by one git process. Raises ProofError for a missing one."""
    said, at, texts = read_objects(lab, names, cwd=folder), 0, []
    for name in names:
        begin = said.index(b"\n", at) + 1
        if not (head := re.fullmatch(rb"[0-9a-f]+ blob (\d+)\n", said[at:begin])):
            raise ProofError(f"{name} is not a file of that commit", "look at the commit with git")
        end = begin + int(head[1])
        texts.append(said[begin:end].decode("utf-8", "replace"))
        at = end + 1
    return texts


def parse_pointer(blob: str, text: str) -> Pointer:
    """Parse a pointer to one file or folder. Raises ValueError when the text is none."""
    import yaml

    try:
        (out,) = yaml.safe_load(text)["outs"]
        size = out.get("size")
        return Pointer(blob, text, str(out["md5"]), None if size is None else int(size))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("it does not name the MD5 of one file or folder") from error


def parse_trailers(text: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in text.split("\x1e") if line)
    return {key: value for key, _, value in pairs}


# --- The data -------------------------------------------------------------------------------------


@contextmanager
def temporary_checkout(lab: Access, commit: str, *paths: str) -> Iterator[Checkout]:
    """Yield the commit in a fresh clone, its dataset or these paths pulled by the `dvc` command.

    Raises CommitError and ProofError.
    """
    with temporary_clone(lab) as folder:
        run_git(lab, "checkout", "--quiet", resolve_commit(lab, folder, commit), cwd=folder)
        dvc_process.pull(lab, folder, *(paths or (lab.dataset_path,)))
        yield Checkout(folder)


def read_remote(lab: Access, folder: Path, commit: str) -> tuple[str, str]:
    """Read bucket and prefix of the default DVC remote at a commit, from `.dvc/config` alone.

    Raises ProofError when it names none. Where a version's data is, `lab.client.data` knows.
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
