"""`pull`: bring versions of data sets into the run's workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataset_steps import kept, pointer, repository
from dataset_steps.errors import StepError
from dataset_steps.patience import with_retries
from dataset_steps.remote import Remote
from dataset_steps.repository import BRANCH
from dataset_steps.settings import Settings
from dataset_steps.workspace import LASTING, Asked, Began, Pulled, Workspace, sweep

COMMIT = re.compile(f"{BRANCH}|[0-9a-f]{{7,40}}")


@dataclass(frozen=True)
class Request:
    """What one `pull` of a DAG asks for."""

    names: tuple[str, ...]
    commit: str = BRANCH
    optional: bool = False  # a data set without any version yet begins empty
    again: bool = False  # discard all that is in the workspace first

    @classmethod
    def from_environment(
        cls, names: Sequence[str], env: Mapping[str, str], *, optional: bool, again: bool
    ) -> Request:
        """Return the request; `DATA_COMMIT` in `env` is the commit. Raise StepError."""
        commit = env.get("DATA_COMMIT") or BRANCH
        if not COMMIT.fullmatch(commit):
            raise StepError(f"DATA_COMMIT {commit!r} is neither main nor 7 to 40 digits of a hash")
        return cls(tuple(names), commit, optional, again)


def pull(
    settings: Settings, workspace: Workspace, request: Request, env: Mapping[str, str]
) -> None:
    """Clone the repository and download the data sets that were asked for, byte for byte.

    All that one run pulls of `main` is of the moment at which it began. A finished pull is not
    repeated; one that was cut off starts afresh. Raise StepError for a data set that is not
    declared, that has no version at that commit, or that git keeps, too.
    """
    paths = {name: settings.require_path(name) for name in request.names}
    keep = kept.parse_keep_hours(env)
    if keep is not None:
        kept.sweep(settings, workspace, keep)
    if request.again:
        workspace.clear()
    begin(settings, workspace)
    if keep is not None:
        kept.write_note(settings, workspace)
    for name, path in paths.items():
        pull_once(workspace, Asked(name, path, request.commit, request.optional))


def begin(settings: Settings, workspace: Workspace) -> None:
    """Clone the repository into the workspace, unless that is done."""
    if workspace.read_record("began", Began):
        repository.remove_stale_locks(workspace.repository)
        return
    sweep(workspace.root.parent)
    workspace.clear(but=LASTING)
    repository.clone(settings.git_url, workspace.repository)
    if not (newest := repository.tip(workspace.repository)):
        raise StepError("the datasets repository has no commit yet: import a dataset first")
    workspace.record("began", Began(newest))


def require_began(workspace: Workspace) -> Began:
    """Return when the run began. Raise StepError before its first pull."""
    if found := workspace.read_record("began", Began):
        return found
    raise StepError("nothing was pulled into this run's workspace: run the pull step first")


def pull_once(workspace: Workspace, asked: Asked) -> None:
    """Pull a data set unless that is done."""
    if workspace.read_pulled(asked.name):
        print(f"{asked.name} is already pulled")
        return
    workspace.record(f"asked.{asked.name}", asked)
    pulled = fetch_data_set(workspace, asked)
    workspace.record(f"pulled.{asked.name}", pulled)


def fetch_data_set(workspace: Workspace, asked: Asked) -> Pulled:
    """Download the version that was asked for to its place in the clone."""
    clone, began = workspace.repository, require_began(workspace).commit
    commit = began if asked.is_newest else resolve_commit(workspace, asked)
    with checking_out(workspace, commit, began):
        made = repository.find_last_change(clone, commit, f"{asked.path}.dvc")
        if not (clone / f"{asked.path}.dvc").exists():
            return begin_empty(asked, commit)
        if repository.is_tracked(clone, asked.path):  # each checkout would bring it back
            raise StepError(
                f"git keeps {asked.path} itself, beside its pointer: "
                f"`git rm -r --cached {asked.path}`, and commit that"
            )
        return download(workspace, asked, made or commit)


@contextmanager
def checking_out(workspace: Workspace, commit: str, after: str) -> Iterator[None]:
    """Check a commit out while the block runs, and `after` at its end."""
    switch(workspace.repository, commit)
    yield
    switch(workspace.repository, after)


def switch(clone: Path, commit: str) -> None:
    """Check the commit out unless it is; what steps have changed in it stays otherwise."""
    if repository.head(clone) != commit:
        repository.checkout(clone, commit)


def resolve_commit(workspace: Workspace, asked: Asked) -> str:
    """Return the full hash of the commit that was asked for. Raise StepError without one."""
    if found := repository.resolve(workspace.repository, asked.commit):
        return found
    raise StepError(
        f"the datasets repository has no commit {asked.commit} on any branch, or more than one "
        "whose hash begins so; `git log` in a clone shows the commits there are"
    )


def begin_empty(asked: Asked, commit: str) -> Pulled:
    """Return what is pulled of a data set without a version. Raise StepError unless it may."""
    if not asked.optional:
        raise StepError(
            f"commit {commit} has no {asked.path}.dvc: import {asked.name} first, choose a commit "
            "that has it, or let the DAG begin it with `optional=True`"
        )
    print(f"{asked.name} has no version yet: it begins empty")
    return Pulled(asked.name, asked.path, commit, md5="", size=0)


@with_retries  # each attempt replaces the data by the same bytes
def download(workspace: Workspace, asked: Asked, made: str) -> Pulled:
    """Download the data that the checked-out pointer names."""
    names = pointer.read(workspace.repository / f"{asked.path}.dvc")
    place = workspace.place(asked.name)
    md5 = Remote(workspace.repository).download(names, asked.path, place)
    print(f"pulled {names.size} bytes of version {names.md5} at commit {made}")
    return Pulled(asked.name, asked.path, made, names.md5, names.size, md5)
