"""Workspaces that are kept for inspection, for as many hours as their DAG says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from dataset_steps.errors import StepError
from dataset_steps.files import write_atomically
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, try_lock

NOTE = "kept.json"  # in the workspace: its DAG and run; tests look for it, too
HOUR = 3600  # seconds


def parse_keep_hours(env: Mapping[str, str]) -> float | None:
    """Return how long the DAG keeps workspaces, or None when it keeps none. Raise StepError."""
    text = env.get("KEEP_HOURS")
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not found >= 0:  # true for NaN, too
        raise StepError(f"KEEP_HOURS is {text!r}, which is no number of hours")
    return found


def write_note(settings: Settings, workspace: Workspace) -> None:
    """Write the workspace's DAG and run into it, so that a later run of the DAG can remove it."""
    whose = {"dag_id": settings.dag_id, "run_id": settings.run_id}
    write_atomically(workspace.root / NOTE, json.dumps(whose))


def sweep(settings: Settings, workspace: Workspace, keep: float) -> None:
    """Remove workspaces of the DAG's other runs that nothing was written to for `keep` hours.

    Leave one in which a step is at work. A run that is between two steps holds no lock, so a DAG
    that keeps workspaces must run one at a time.
    """
    for found in workspace.root.parent.glob(f"*/{NOTE}"):
        folder = found.parent
        if (
            folder != workspace.root
            and is_note_of(found, settings.dag_id)
            and idle_hours(folder) >= keep
        ):
            remove_workspace(folder)


def is_note_of(found: Path, dag_id: str) -> bool:
    """Return whether the note names a run of the DAG."""
    try:
        return bool(json.loads(found.read_text(encoding="utf-8"))["dag_id"] == dag_id)
    except FileNotFoundError:
        return False


def idle_hours(folder: Path) -> float:
    """Return the hours since the folder changed; 0 when the clock was set back."""
    try:
        return max(0.0, (time.time() - folder.stat().st_mtime) / HOUR)
    except FileNotFoundError:
        return 0.0


def remove_workspace(folder: Path) -> None:
    """Remove the workspace and its lock, unless a step is at work there."""
    lock = folder.with_name(folder.name + ".lock")
    if held := try_lock(lock):
        with held:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            print(f"removed {folder.name}, which an earlier run had left for reading")
