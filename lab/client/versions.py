"""Reading the datasets repository as anybody can, by git and DVC: no code of the steps."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from lab.client import dvc_process, trailers
from lab.client.git import environment, read_texts, run_git
from lab.client.history import Commit, History, Pointer
from lab.data_sets import DATASET, POINTER
from lab.errors import CommitError, LabError, ProofError
from lab.model import Access, Checkout, DataSet, Model, Version

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


def read_version(lab: Access, commit: str, name: str | None = None) -> Version:
    """Return the version of a data set at a commit. Raises CommitError when it has none."""
    with temporary_clone(lab) as folder:
        return read_data_set(lab, folder, commit, name).version


def read_history(lab: Access, commit: str, name: str | None = None) -> list[Version]:
    """List the version at a commit and all before it, the newest first. Raises CommitError."""
    with temporary_clone(lab) as folder:
        return read_data_set(lab, folder, commit, name).versions


def read_model(lab: Access, commit: str) -> Model:
    """Return the version of the model at a commit. Raises CommitError when it has none."""
    with temporary_clone(lab) as folder:
        newest = read_graph(lab, folder, commit, "model", MODEL).version
        (text,) = read_blobs(lab, folder, [f"{newest.commit}:{METRICS}"])
    sources = {source.path: source.commit for source in newest.sources}
    return Model(
        newest.commit,
        sources.get(lab.dataset_path, newest.trailers.get("Data-Commit")),
        newest.md5,
        newest.size,
        json.loads(text),
        newest.trailers,
    )


# --- The data sets of a commit --------------------------------------------------------------------


def read_data_set(lab: Access, folder: Path, commit: str, name: str | None) -> History:
    """Read the history of one data set: of the main one without a name.

    Raises CommitError when there is no such name or commit.
    """
    name = name or lab.dataset_name
    if name not in lab.data_paths:
        raise unknown_data_error(name, lab.data_paths)
    return read_graph(lab, folder, commit, kind_of(name), lab.data_paths[name])


def read_data_sets(
    lab: Access, folder: Path, commit: str, wanted: str | None = None
) -> dict[str, History]:
    """Read the history of each data set that a commit has, by its name.

    These are those declared, and the others that a run or an import has made; without
    a name in lab.toml, such a one is called after its path. With `wanted`, a name or a path, it
    is that one alone. Raises CommitError when there is none.
    """
    log = read_log(lab, folder, commit)
    pointers = list_pointers(lab, folder, log)
    known = {name: path for name, path in lab.data_paths.items() if path in pointers}
    others = {path: path for path in sorted(pointers & log.made - {*known.values()})}
    if wanted is not None:
        return read_histories(lab, folder, log, choose_data(wanted, known, others, pointers))
    found = read_histories(lab, folder, log, {lab.dataset_name: lab.dataset_path} | known | others)
    chosen = {name: found[name] for name in [*known, *others]}
    chosen = {name: each for name, each in chosen.items() if name in known or is_made(each)}
    return chosen or {lab.dataset_name: found[lab.dataset_name]}  # which says that there is none


def choose_data(
    wanted: str, known: Mapping[str, str], others: Mapping[str, str], pointers: Collection[str]
) -> dict[str, str]:
    """Return name and path of the data set of that name or path. Raises CommitError."""
    if wanted in known:
        return {wanted: known[wanted]}
    path = str(PurePosixPath(wanted.removesuffix(POINTER)))
    if path not in pointers:
        raise unknown_data_error(wanted, [*known, *others])
    return {next((name for name in known if known[name] == path), path): path}


def unknown_data_error(name: str, names: Collection[str]) -> CommitError:
    return CommitError(
        f"there is no data set {name!r}: there is {', '.join(names) or 'none'}",
        "give one of these names, or the path of what DVC tracks in that commit",
    )


def list_data_sets(lab: Access, commit: str) -> list[DataSet]:
    """List the data sets of a commit, and those that are declared and have no version there yet."""
    paths = lab.data_paths
    try:
        with temporary_clone(lab) as folder:
            log = read_log(lab, folder, commit)
            others = (list_pointers(lab, folder, log) & log.made) - {*paths.values()}
            paths |= {path: path for path in sorted(others)}
            found = read_histories(lab, folder, log, paths)
    except CommitError as error:
        return [DataSet(name, path, None, error.what) for name, path in paths.items()]
    listed = [describe_data(name, history) for name, history in found.items()]
    return [each for each in listed if each.name in lab.data_paths or is_made(found[each.name])]


def describe_data(name: str, history: History) -> DataSet:
    """Return what the newest commit of a history has of its data set."""
    path = history.path.removesuffix(POINTER)
    try:
        return DataSet(name, path, history.version)
    except (CommitError, ProofError) as error:
        is_new = not history.pointers and not history.broken
        return DataSet(name, path, None, "no version yet" if is_new else error.what)


def is_made(history: History) -> bool:
    """Return whether a run or an import has made the version that the newest commit has."""
    return (
        history.head.name in history.pointers
        and trailers.find_maker(history.version) != trailers.HAND
    )


def kind_of(name: str) -> str:
    """Return what a data set is called in an error."""
    return name if name == DATASET else f"data set {name}"


# --- The graph of commits -------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """All commits up to one, as git logs them: none before its children, else the newest first."""

    asked: str  # what the user calls the newest one
    commits: tuple[Logged, ...]

    @property
    def made(self) -> set[str]:
        """The paths of which a commit says that a run or an import has made it."""
        said = [pair for commit in self.commits for pair in commit.trailers]
        models = {MODEL for key, _ in said if key == "Model-Md5"}
        return models | {value for key, value in said if key == "Data-Path"}


@dataclass(frozen=True)
class Logged:
    """One commit of a log."""

    name: str
    parents: tuple[str, ...]
    author: str  # with the time to the second
    trailers: tuple[tuple[str, str], ...]


def read_graph(
    lab: Access, folder: Path, commit: str, kind: str = DATASET, path: str | None = None
) -> History:
    """Read the history of a pointer up to a commit. Raises CommitError without such a commit.

    The pointer is the dataset's unless `path` names another file that DVC tracks.
    """
    log = read_log(lab, folder, commit)
    return read_histories(lab, folder, log, {kind: path or lab.dataset_path}, str)[kind]


def read_log(lab: Access, folder: Path, commit: str) -> Log:
    """Read all commits up to one. Raises CommitError without such a commit."""
    head = resolve_commit(lab, folder, commit)
    log = run_git(lab, "log", "--date-order", f"--format={LOG_FORMAT}", head, cwd=folder)
    rows = [row.strip("\n").split("\x1f") for row in log.split("\x1d") if row.strip()]
    commits = (
        Logged(name, tuple(parents.split()), author, trailers.split_trailers(said))
        for name, parents, author, said in rows
    )
    return Log(commit, tuple(commits))


def list_pointers(lab: Access, folder: Path, log: Log) -> set[str]:
    """Return the path of whatever has a pointer in the newest commit."""
    words = ("ls-tree", "-r", "-z", "--name-only", log.commits[0].name)
    names = run_git(lab, *words, cwd=folder).split("\0")
    return {name.removesuffix(POINTER) for name in names if name.endswith(POINTER)}


def read_histories(
    lab: Access,
    folder: Path,
    log: Log,
    paths: Mapping[str, str],
    kind: Callable[[str], str] = kind_of,
) -> dict[str, History]:
    """Read the histories of several data sets at once, by their names."""
    pointers = {name: f"{path}{POINTER}" for name, path in paths.items()}
    configs = {name: list_configs(pointer) for name, pointer in pointers.items()}
    asked = list(dict.fromkeys([*pointers.values(), *chain.from_iterable(configs.values())]))
    rows = find_blobs(lab, folder, [commit.name for commit in log.commits], asked)
    blobs = [dict(zip(asked, row, strict=True)) for row in rows]
    named = {row[pointer] for row in blobs for pointer in pointers.values()} - {""}
    found, reasons = read_pointers(lab, folder, named)
    return {
        name: build_history(log, kind(name), pointer, configs[name], blobs, found, reasons)
        for name, pointer in pointers.items()
    }


def build_history(
    log: Log,
    kind: str,
    pointer: str,
    configs: Sequence[str],
    blobs: Sequence[Mapping[str, str]],
    found: Mapping[str, Pointer],
    reasons: Mapping[str, str],
) -> History:
    """Return the history of one pointer, from the blobs that each commit has at these paths."""
    commits: dict[str, Commit] = {}
    pointers: dict[str, Pointer] = {}
    broken: dict[str, str] = {}
    for each, blob_at in zip(log.commits, blobs, strict=True):
        said, sources = trailers.parse_trailers(each.trailers, pointer.removesuffix(POINTER))
        config = tuple(blob_at[path] for path in configs)
        commits[each.name] = Commit(each.name, each.parents, each.author, said, sources, config)
        if (blob := blob_at[pointer]) in found:
            pointers[each.name] = found[blob]
        if blob in reasons:
            broken[each.name] = reasons[blob]
    return History(log.asked, kind, pointer, commits, pointers, broken)


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
    return read_texts(names, folder, environment(lab))


def parse_pointer(blob: str, text: str) -> Pointer:
    """Parse a pointer to one file or folder. Raises ValueError when the text is none."""
    import yaml

    try:
        (out,) = yaml.safe_load(text)["outs"]
        size, files = (
            None if out.get(key) is None else int(out[key]) for key in ("size", "nfiles")
        )
        return Pointer(blob, text, str(out["md5"]), size, files)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("it does not name the MD5 of one file or folder") from error


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
