"""What a run publishes: pointers to data sets, small files that git keeps, and its message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_steps import pointer, repository, yaml_files
from dataset_steps.content import Content
from dataset_steps.errors import StepError
from dataset_steps.files import atomic_write
from dataset_steps.pointer import Pointer
from dataset_steps.settings import Settings
from dataset_steps.workspace import Pulled, Workspace

LARGEST = 10 * 2**20  # bytes of a file that git keeps: larger ones are data
PIPELINE = "dvc.yaml"


@dataclass(frozen=True)
class Files:
    """The paths of small files that git itself keeps; metrics are listed in `dvc.yaml`, too."""

    plain: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.plain, *self.metrics)


@dataclass(frozen=True)
class Change:
    """What a run has made of one data set."""

    name: str
    path: str
    place: Path
    content: Content
    before: Pointer | None  # what `main` names; None where it has no version
    pulled: bool  # whether the run has pulled the version before


def write_files(workspace: Workspace, files: Files) -> list[Path]:
    """Copy the steps' files into the tree that is committed. Return those that have changed.

    Raise StepError when a step has not written one, and when one is too large for git.
    """
    tree, changed = workspace.publishing, []
    for path in files.paths:
        content = read_small_file(workspace.repository, path)
        target = tree / path
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as file:
                file.write(content)
            changed.append(target)
    changed += [tree / PIPELINE] if register_metrics(tree / PIPELINE, files.metrics) else []
    return changed


def read_small_file(clone: Path, path: str) -> bytes:
    """Return the bytes of a file that git keeps. Raise StepError for one that it should not."""
    file = clone / path
    if file.is_symlink() or not file.is_file():
        raise StepError(
            f"no step wrote {path}, a file to be published: write it to $WORKSPACE/{path}"
        )
    if (size := file.stat().st_size) > LARGEST:
        raise StepError(
            f"{path} has {size} bytes, too many for git: declare it as a data set, and publish that"
        )
    return file.read_bytes()


def register_metrics(path: Path, names: Iterable[str]) -> bool:
    """Add metrics to `dvc.yaml`, for `dvc metrics show`; keep the rest. Return whether it changed.

    Raise StepError when the file is not DVC's.
    """
    content = yaml_files.read_for_update(path) if path.exists() else {}
    known = content.setdefault("metrics", []) if isinstance(content, dict) else None
    if not isinstance(known, list):
        raise StepError(f"{path.name} in the repository is not DVC's: it has no list of metrics")
    listed = {key for each in known for key in (each if isinstance(each, dict) else (each,))}
    new = [name for name in names if name not in listed]
    if new:
        known.extend(new)
        yaml_files.write(path, content)
    return bool(new)


def write_pointer(tree: Path, change: Change) -> list[Path]:
    """Write a data set's pointer, and have git ignore a new one. Return the paths."""
    file = tree / f"{change.path}.dvc"
    ignored = [] if change.before else [repository.ignore_file(tree / change.path)]
    pointer.write(file, change.content.pointer)
    return [file, *ignored]


# --- The message ----------------------------------------------------------------------------------


def run_trailers(settings: Settings) -> dict[str, str]:
    """Return the trailers that identify a run's commit."""
    return {"Run-Id": settings.run_id, "Dag-Id": settings.dag_id}


def format_message(
    settings: Settings, message: str, changes: Sequence[Change], sources: Sequence[Pulled]
) -> str:
    """Return the commit message: which run made which versions from which.

    A group of trailers begins at `Data-Path`, or at `From-Path` for what was read alone.
    """
    trailers = [
        *run_trailers(settings).items(),
        ("Dag-Version", settings.dag_version),
        *(pair for change in changes for pair in data_trailers(change)),
        *(pair for source in sources if source.md5 for pair in source_trailers(source)),
    ]
    what = ", ".join(change.path for change in changes) or "files"
    return repository.format_message(f"data: {message} {what}", trailers)


def data_trailers(change: Change) -> Iterator[tuple[str, str]]:
    """Yield the trailers of one new version."""
    yield from pointer.trailers(change.path, change.content.pointer).items()
    if change.before:
        yield "Data-Parent", change.before.md5


def source_trailers(source: Pulled) -> Iterator[tuple[str, str]]:
    """Yield the trailers of a version that was read."""
    yield "From-Path", source.path
    yield "From-Commit", source.commit
    yield "From-Md5", source.md5
