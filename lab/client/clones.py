"""Clones that live until this process ends: the paths in them are for whoever reads files."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from lab.client import dvc_process, versions
from lab.client.git import run_git
from lab.model import Access


@dataclass(frozen=True)
class Clone:
    """A clone at one commit, and the data that it has."""

    folder: Path
    pulled: set[str] = field(default_factory=set)


KEPT: dict[tuple[str, str], Clone] = {}  # by the repository's address and the commit's hash
LOCK = Lock()  # of the clones: two threads would pull into one


def fetch_data(lab: Access, name: str, commit: str) -> Path:
    """Return the path of a data set's file or directory at a commit, pulled by DVC.

    It is there until the process ends. Raises CommitError and ProofError.
    """
    with LOCK, ExitStack() as stack:
        folder = stack.enter_context(versions.temporary_clone(lab))
        head = versions.resolve_commit(lab, folder, commit)
        known = KEPT.get((lab.git_url, head))
        clone = known or Clone(folder)
        versions.read_data_set(lab, folder, commit, name).version  # noqa: B018  is there one?
        if not known:
            run_git(lab, "checkout", "--quiet", head, cwd=folder)
            KEPT[lab.git_url, head] = clone
            atexit.register(stack.pop_all().close)
        return pull(lab, clone, lab.data_paths[name])


def pull(lab: Access, clone: Clone, path: str) -> Path:
    """Return where the data of this path is in the clone; pull it unless that is done."""
    if path not in clone.pulled:
        dvc_process.pull(lab, clone.folder, path)
        clone.pulled.add(path)
    return clone.folder / path
