"""A datasets repository that the lab has taken in: its commits from before name other remotes.

The lab made one commit on top of the origin's history, by which its own store is DVC's remote. For
each commit that does not descend from it, that store stands for whatever remote the commit names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.client.git import run_git
from lab.client.trailers import split_trailers
from lab.layout import STORE
from lab.model import Access

TRAILER = "Taken-In-At"  # the newest commit of the origin
LOST = "Missing-Md5"  # of an object that the origin had no more; there may be many
FORMAT = "%H%x1f%(trailers:only,unfold,separator=%x1e)%x1d"


@dataclass(frozen=True)
class TakenIn:
    """The commit by which the repository was taken in, and those that descend from it."""

    commit: str
    later: frozenset[str]
    lost: frozenset[str]  # what the origin had no more

    def is_older(self, commit: str) -> bool:
        """Return whether the lab's store stands for the remotes of a commit."""
        return commit not in self.later


def lost_at(taken: TakenIn | None, commit: str) -> frozenset[str]:
    """Return what a version that this commit made may lack: the origin had it no more."""
    return taken.lost if taken and taken.is_older(commit) else frozenset()


def store_url(lab: Access) -> str:
    """Return the URL of the lab's store, as a remote of DVC."""
    return f"s3://{lab.s3_bucket}/{STORE}"


def read_taken_in(lab: Access, clone: Path) -> TakenIn | None:
    """Return how the clone's repository was taken in, or None where it was not."""
    main = "--remotes=origin/mai[n]"  # a pattern: a name alone would be that of a folder
    words = ("log", f"--format={FORMAT}", f"--grep=^{TRAILER}: ", "--topo-order", "--reverse", main)
    for row in run_git(lab, *words, cwd=clone).split("\x1d"):
        commit, _, said = row.strip("\n").partition("\x1f")
        trailers = split_trailers(said)
        if TRAILER in dict(trailers):  # the oldest
            lost = frozenset(value for key, value in trailers if key == LOST)
            return TakenIn(commit, list_later(lab, clone, commit), lost)
    return None


def list_later(lab: Access, clone: Path, commit: str) -> frozenset[str]:
    """Return a commit and all that descend from it."""
    words = ("rev-list", "--ancestry-path", f"^{commit}", "--remotes", "--tags", "HEAD")
    return frozenset([commit, *run_git(lab, *words, cwd=clone).split()])


def find_store(lab: Access, taken: TakenIn | None, commit: str) -> str | None:
    """Return the URL that stands for the remotes of a commit, or None where nothing does."""
    return store_url(lab) if taken and taken.is_older(commit) else None


def find_store_of_checkout(lab: Access, clone: Path) -> str | None:
    """Return the URL that stands for the remotes of the commit that is checked out, or None."""
    taken = read_taken_in(lab, clone)
    return find_store(lab, taken, run_git(lab, "rev-parse", "HEAD", cwd=clone).strip())
