"""The turn to publish: of the runs that share a folder one publishes at a time.

It only saves work: of runs that publish together one wins, and the others must pull and store
again. The compare-and-swap of the push keeps the history right, so nobody waits for ever.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from dataset_steps.errors import TemporaryError
from dataset_steps.files import write_atomically
from dataset_steps.workspace import LOCK_SECONDS, Workspace, acquire_lock

# How long a run may keep the turn while its steps run again outside of its publishing process.
SHORTEST, LONGEST = 60, 900  # seconds


@contextmanager
def taking_turn(workspace: Workspace) -> Iterator[None]:
    """Wait until no other run of this folder publishes; after LOCK_SECONDS run the block anyway."""
    runs = workspace.root.parent
    waiting = Retrying(
        retry=retry_if_result(bool), stop=stop_after_delay(LOCK_SECONDS), wait=wait_fixed(0.5)
    )
    with suppress(RetryError):
        waiting(is_kept_by_another, workspace)
    try:
        lock = acquire_lock(runs / "publish.lock")
    except TemporaryError:
        yield
        return
    with lock:
        yield


def keep_turn(workspace: Workspace) -> None:
    """Keep the turn until the run publishes: twice as long as it took to come here."""
    took = time.time() - (workspace.root / "began.json").stat().st_mtime
    until = time.time() + min(max(2 * took, SHORTEST), LONGEST)
    write_atomically(note(workspace), json.dumps({"key": workspace.key, "until": until}))


def give_turn_back(workspace: Workspace) -> None:
    """Let the next run publish."""
    if read_note(workspace).get("key") == workspace.key:
        note(workspace).unlink(missing_ok=True)


def is_kept_by_another(workspace: Workspace) -> bool:
    """Return whether another run keeps the turn while its steps run again."""
    said = read_note(workspace)
    return said.get("key") != workspace.key and time.time() < said.get("until", 0)


def read_note(workspace: Workspace) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return dict(json.loads(note(workspace).read_text(encoding="utf-8")))
    return {}


def note(workspace: Workspace) -> Path:
    """Return the file that says which run keeps the turn, and until when."""
    return workspace.root.parent / "publish.turn"
