"""What was made in AWS, so that exactly that can be removed: intent first, then what came of it.

A process may be killed between any two calls. What the ledger says was intended may or may not be
there; it is looked for by its name and its tag, and made or removed again.

It also says where all that is. What is looked for in another region is not found, and would be
forgotten as if it were gone: so a ledger is of use to the environment of that place only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lab.errors import EnvironmentFileError, HomeError
from lab.files import write_private


@dataclass(frozen=True)
class Entry:
    """One thing in AWS or in the cluster that this environment has, or was about to have."""

    kind: str
    name: str
    state: Literal["intended", "made"]
    at: str  # UTC, ISO 8601
    facts: dict[str, str] = field(default_factory=dict)  # ids and ARNs; no secrets


@dataclass(frozen=True)
class Ledger:
    """The file of one environment. Read anew at each look, written whole."""

    path: Path
    place: Mapping[str, str] = field(default_factory=dict)  # by the environment's file, as it is

    def entries(self, kind: str | None = None) -> list[Entry]:
        """What there is, the oldest first. Raises HomeError when the file can't be understood,
        EnvironmentFileError when what there is, is somewhere else."""
        if not self.path.exists():
            return []
        try:
            place, found = parsed(self.path.read_text("utf-8"))
        except (ValueError, TypeError) as error:
            raise HomeError(
                f"{self.path} is no ledger: {error}",
                "restore it from a backup; without it, destroy goes by the tags alone",
            ) from error
        if found:
            self.refuse_elsewhere(place)
        return [entry for entry in found if kind in (None, entry.kind)]

    def refuse_elsewhere(self, place: Mapping[str, str]) -> None:
        """Raises EnvironmentFileError when the environment's file says another place than this."""
        moved = [
            f"{word} {was}, the file says {self.place[word]}"
            for word, was in place.items()
            if self.place.get(word, was) != was
        ]
        if moved:
            raise EnvironmentFileError(
                f"what is there was made with {'; '.join(moved)} ({self.path})",
                "set it back; to move, destroy what is there first, and change it then",
            )

    def find(self, kind: str, name: str) -> Entry | None:
        """The entry of this kind and name."""
        return next((entry for entry in self.entries(kind) if entry.name == name), None)

    @contextmanager
    def making(self, kind: str, name: str) -> Iterator[dict[str, str]]:
        """The block makes the thing. Before it the ledger says so; after it, with the facts that
        the block put into the dictionary, that it was made."""
        known = self.find(kind, name) or Entry(kind, name, "intended", now())
        self.write(known)
        facts = dict(known.facts)
        yield facts
        self.write(replace(known, state="made", at=now(), facts=facts))

    def forget(self, kind: str, name: str) -> None:
        """The thing is gone."""
        rest = [entry for entry in self.entries() if (entry.kind, entry.name) != (kind, name)]
        self.save(rest)

    def write(self, entry: Entry) -> None:
        """The entry is in the file, in its place if it was there."""
        found = self.entries()
        for index, other in enumerate(found):
            if (other.kind, other.name) == (entry.kind, entry.name):
                found[index] = entry
                break
        else:
            found.append(entry)
        self.save(found)

    def save(self, entries: list[Entry]) -> None:
        """The file has these entries, and where they are."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {"place": dict(self.place), "entries": [asdict(entry) for entry in entries]}
        write_private(self.path, json.dumps(content, indent=1) + "\n")


def parsed(text: str) -> tuple[dict[str, str], list[Entry]]:
    """Place and entries in `text`. Raises ValueError and TypeError when it is no ledger."""
    found = json.loads(text)
    if not isinstance(found, dict) or found.keys() != {"place", "entries"}:
        raise ValueError("it lacks the place or the entries")
    return dict(found["place"]), [Entry(**entry) for entry in found["entries"]]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
