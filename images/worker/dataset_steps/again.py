"""Running the steps between pull and publish again, on the newer versions.

A note in the workspace says that they have to run. It is written before anything of theirs is
discarded and removed when all have ended, so that a half-made version is never published.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset_steps import turn
from dataset_steps.contract import HAVE_RUN
from dataset_steps.errors import Overtaken, StepError, TemporaryError
from dataset_steps.pull import begin, pull_once
from dataset_steps.settings import Settings
from dataset_steps.workspace import LASTING, LOCK_IS_HELD, Workspace

NOTE = "again"  # the record that the steps have to run again


@dataclass(frozen=True)
class Again:
    """Why the steps have to run again."""

    why: str


@dataclass(frozen=True)
class Step:
    """A step that this process may run again: its command and its own variables."""

    argv: tuple[str, ...]
    variables: Mapping[str, str]


def parse_steps(text: str | None) -> list[Step] | None:
    """Return the steps in the variable AGAIN, or None when they need an image of their own."""
    if text is None:
        return None
    try:
        rows: list[Mapping[str, Any]] = json.loads(text)
        return [Step(tuple(row["argv"]), dict(row["variables"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"AGAIN is not the JSON of steps to run again: {error!r}") from error


def settle_note(workspace: Workspace, env: Mapping[str, str]) -> None:
    """Remove the note when publish's operator has just run all steps again."""
    if env.get(HAVE_RUN):
        workspace.forget(NOTE)


def is_due(workspace: Workspace) -> str | None:
    """Return why the steps have to run again, though an attempt that began with it was cut off."""
    found = workspace.read_record(NOTE, Again)
    return found.why if found else None


def start_over(
    settings: Settings, workspace: Workspace, why: str, steps: list[Step] | None
) -> None:
    """Pull anew what the run has pulled, and run its steps again.

    Raise Overtaken when somebody else has to run them; the run keeps the turn meanwhile.
    """
    print(f"{why}: starting over from the newest version", flush=True)
    workspace.record(NOTE, Again(why))
    asked = workspace.list_asked()
    workspace.clear(but=LASTING)
    begin(settings, workspace)
    for each in asked:
        pull_once(workspace, each)
    if steps is None:
        turn.keep_turn(workspace)
        raise Overtaken(f"{why}: the steps have to run again")
    for step in steps:
        run_step(workspace, step)
    workspace.forget(NOTE)


def run_step(workspace: Workspace, step: Step) -> None:
    """Run a step of this image in the workspace. Raise its error when it fails."""
    print(f"again: {' '.join(step.argv)}", flush=True)
    env = {**os.environ, **step.variables, **LOCK_IS_HELD}
    try:
        # It holds the workspace's lock, too: an orphan keeps a retry out.
        done = subprocess.run(
            step.argv, cwd=workspace.repository, env=env, check=False, close_fds=False
        )
    except OSError as error:
        raise StepError(f"{step.argv[0]} can't be run: {error.strerror}") from error
    if done.returncode == StepError.exit_code:
        raise StepError(f"{' '.join(step.argv)} failed, and no retry can help: its error is above")
    if done.returncode:
        raise TemporaryError(f"{' '.join(step.argv)} ended with code {done.returncode}")
