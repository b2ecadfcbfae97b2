"""What was made in AWS, so that exactly that can be removed: first the intent, then the result.

A process may be killed between any two calls. What the ledger says was intended may or may not
exist; it is looked up by its name and its tag, and made or removed again.

It also says where all that is. What is looked up in another region is not found, and would be
forgotten as if it were gone: so a ledger is used only by an environment of the same place.
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
from lab.files import write_private_file


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
    """The ledger file of one environment, read again at each access and written whole."""

    path: Path
    place: Mapping[str, str] = field(default_factory=dict)  # as the environment's file has it now

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return the entries, the oldest first.

        Raises HomeError when the file can't be parsed, EnvironmentFileError when what it lists is
        in another place.
        """
        if not self.path.exists():
            return []
        try:
            place, found = parse_ledger(self.path.read_text("utf-8"))
        except (ValueError, TypeError) as error:
            raise HomeError(
                f"{self.path} is no ledger: {error}",
                "restore it from a backup; without it, destroy goes by the tags alone",
            ) from error
        if found:
            self.refuse_other_place(place)
        return [entry for entry in found if kind in (None, entry.kind)]

    def refuse_other_place(self, place: Mapping[str, str]) -> None:
        """Raise EnvironmentFileError when the environment's file names another place than this."""
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
        """Return the entry of this kind and name; None without one."""
        return next((entry for entry in self.entries(kind) if entry.name == name), None)

    @contextmanager
    def making(self, kind: str, name: str) -> Iterator[dict[str, str]]:
        """Write the entry as intended, run the block that makes the thing, write it as made.

        Yields the dictionary into which the block puts the facts of the entry.
        """
        known = self.find(kind, name) or Entry(kind, name, "intended", now())
        self.write(known)
        facts = dict(known.facts)
        yield facts
        self.write(replace(known, state="made", at=now(), facts=facts))

    def forget(self, kind: str, name: str) -> None:
        """Remove the entry: the thing is gone."""
        rest = [entry for entry in self.entries() if (entry.kind, entry.name) != (kind, name)]
        self.save(rest)

    def write(self, entry: Entry) -> None:
        """Add the entry to the file, or replace it there in its position."""
        found = self.entries()
        for index, other in enumerate(found):
            if (other.kind, other.name) == (entry.kind, entry.name):
                found[index] = entry
                break
        else:
            found.append(entry)
        self.save(found)

    def save(self, entries: list[Entry]) -> None:
        """Write the file: these entries, and their place."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {"place": dict(self.place), "entries": [asdict(entry) for entry in entries]}
        write_private_file(self.path, json.dumps(content, indent=1) + "\n")


def parse_ledger(text: str) -> tuple[dict[str, str], list[Entry]]:
    """Return place and entries in `text`. Raises ValueError or TypeError when it is no ledger."""
    found = json.loads(text)
    if not isinstance(found, dict) or found.keys() != {"place", "entries"}:
        raise ValueError("it lacks the place or the entries")
    return dict(found["place"]), [Entry(**entry) for entry in found["entries"]]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
