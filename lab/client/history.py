"""The history of one pointer, as the graph of commits that git keeps.

A commit is a version where its pointer is none of its parents'. So a merge that takes one side's
pointer is no version, a merge that brings a pointer of its own is one, and a commit that removes
the pointer is none. Every side of every merge is walked: `git log -- PATH` alone would leave out
the side whose pointer a merge did not take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lab.errors import CommitError, ProofError
from lab.model import Source, Version


@dataclass(frozen=True)
class Pointer:
    """What a `.dvc` file says, and the blob that it is in git."""

    blob: str
    text: str
    md5: str
    size: int | None  # bytes; old DVC wrote none
    files: int | None = None  # of a directory, where it says so


@dataclass(frozen=True)
class Commit:
    """One commit: what it descends from, who made it, and by which configuration of DVC."""

    name: str
    parents: tuple[str, ...]
    author: str  # with the time to the second: git keeps both where it copies a commit
    trailers: Mapping[str, str]  # of the run, and about this pointer
    sources: tuple[Source, ...]
    config: tuple[str, ...]  # blobs: equal where the configuration is


@dataclass(frozen=True)
class History:
    """All commits up to one: none before its children, else the newest first."""

    asked: str  # what the user calls the newest one
    kind: str  # of the data, in words
    path: str  # of the pointer
    commits: dict[str, Commit]
    pointers: Mapping[str, Pointer]  # by commit
    broken: Mapping[str, str]  # why what is in the pointer's place is none, by commit

    @property
    def head(self) -> Commit:
        """The commit whose history this is."""
        return next(iter(self.commits.values()))

    @cached_property
    def version(self) -> Version:
        """The version that the newest commit has. Raises CommitError and ProofError."""
        name = self.head.name
        if reason := self.broken.get(name):
            raise ProofError(f"the pointer at {name} is not one: {reason}", "restore it by git")
        if name not in self.pointers:
            raise CommitError(
                f"{self.asked} has no {self.path}: this commit has no {self.kind}",
                f"choose another: git log --full-history -- {self.path} in a clone shows them",
            )
        while not self.is_version(name):
            parents = self.commits[name].parents
            name = next(p for p in parents if self.pointers.get(p) == self.pointers[name])
        return self.version_at(name)

    @cached_property
    def versions(self) -> list[Version]:
        """The version that the newest commit has, then all others, the newest first.

        A newest commit without the pointer has only the others. Raises CommitError when there are
        none, and ProofError when what is in the pointer's place is no pointer.
        """
        found = [self.version_at(name) for name in self.pointers if self.is_version(name)]
        if found and self.head.name not in {*self.pointers, *self.broken}:
            return found
        return [self.version, *(each for each in found if each.commit != self.version.commit)]

    def is_version(self, name: str) -> bool:
        """Return whether a commit has a pointer that none of its parents has."""
        pointer = self.pointers.get(name)
        parents = self.commits[name].parents
        return pointer is not None and pointer not in map(self.pointers.get, parents)

    def version_at(self, name: str) -> Version:
        """Return what the pointer of a commit says."""
        pointer, commit = self.pointers[name], self.commits[name]
        return Version(
            name, pointer.md5, pointer.size, commit.trailers, pointer.files, commit.sources
        )

    @cached_property
    def origins(self) -> Mapping[str, set[str]]:
        """The MD5 of the version that each commit was made from; a merge may have several.

        Where a parent has no pointer, its own parents count: the data came from there.
        """
        found: dict[str, set[str]] = {}
        for name, commit in reversed(self.commits.items()):
            found[name] = set()
            for parent in commit.parents:
                pointer = self.pointers.get(parent)
                found[name] |= {pointer.md5} if pointer else found[parent]
        return found

    @cached_property
    def holders(self) -> Mapping[str, list[Commit]]:
        """The commits that have a pointer, by its blob: the oldest of each configuration."""
        found: dict[str, dict[tuple[str, ...], Commit]] = {}
        for name, commit in reversed(self.commits.items()):
            if pointer := self.pointers.get(name):
                found.setdefault(pointer.blob, {}).setdefault(commit.config, commit)
        return {blob: list(commits.values()) for blob, commits in found.items()}
