"""What a run leaves for reading: its workspace, for as many hours as its DAG says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from dataset_steps.errors import StepError
from dataset_steps.files import write_whole
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, try_lock

NOTE = "kept.json"  # in the workspace: whose it is; the lab looks for it, too
HOUR = 3600  # seconds


def hours(env: Mapping[str, str]) -> float | None:
    """How long the DAG keeps what its runs leave, or None when it keeps nothing."""
    text = env.get("KEEP_HOURS")
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not found >= 0:  # which not-a-number is neither
        raise StepError(f"KEEP_HOURS is {text!r}, which is no number of hours")
    return found


def note(settings: Settings, workspace: Workspace) -> None:
    """The workspace says whose it is: a later run of the same DAG removes it when it is old."""
    whose = {"dag_id": settings.dag_id, "run_id": settings.run_id}
    write_whole(workspace.root / NOTE, json.dumps(whose))


def sweep(settings: Settings, workspace: Workspace, keep: float) -> None:
    """Workspaces of this DAG's other runs that nobody wrote to for `keep` hours are gone.

    Never one in which a step is at work. A run that is between two steps holds no lock, so runs
    of a DAG that keeps must come one after another.
    """
    for found in workspace.root.parent.glob(f"*/{NOTE}"):
        folder = found.parent
        if folder != workspace.root and is_of(found, settings.dag_id) and idle(folder) >= keep:
            remove(folder)


def is_of(found: Path, dag_id: str) -> bool:
    """Whether this note is that of a run of the DAG."""
    try:
        return bool(json.loads(found.read_text(encoding="utf-8"))["dag_id"] == dag_id)
    except FileNotFoundError:
        return False


def idle(folder: Path) -> float:
    """For how many hours nothing was added to the folder; none when the clock was set back."""
    try:
        return max(0.0, (time.time() - folder.stat().st_mtime) / HOUR)
    except FileNotFoundError:
        return 0.0


def remove(folder: Path) -> None:
    """The workspace and its lock are gone, unless somebody is at work there."""
    lock = folder.with_name(folder.name + ".lock")
    if held := try_lock(lock):
        with held:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            print(f"removed {folder.name}, which an earlier run had left for reading")
