"""The objects that the pointers of an origin name, copied by a process with DVC to a cache.

It has the person's environment, for that has their access to the remotes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.origin.mirror import Pointer
from lab.reasons import find_reason
from lab.shell import talk

CACHE = "cache"
PROGRAM = Path(__file__).with_name("remote_objects.py")
SECONDS = 6 * 3600  # what was copied until then stays
AGAIN = "the same command again goes on where this one stopped"
ACCESS = "dvc pull in a clone of it must work in this shell: see to that, then the same again"


def copy_objects(
    mirror: Path, source: Path | None, pointers: Sequence[Pointer], env: Mapping[str, str]
) -> dict[str, Any]:
    """Copy all objects that the pointers name to the cache beside the mirror.

    `source` is the origin's folder if it is on this machine. Return what the process says was
    found. Raises LabError when a remote of the newest commit can't be read, or nothing was found.
    """
    cache = mirror.parent / CACHE
    cache.mkdir(exist_ok=True)
    asked = {
        "cache": str(cache),
        "origin": str(source) if source else None,
        "pointers": [asdict(pointer) for pointer in pointers],
    }
    said = ask_process(mirror, json.dumps(asked), env)
    refuse_unreadable_remotes(said)
    return said


def ask_process(mirror: Path, line: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Run the program with a line of input, and return what it answers. Raises LabError."""
    log = mirror.parent / "dvc.log"
    own = {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(mirror.parent / "site"),
        "GIT_TERMINAL_PROMPT": "0",
    }
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", PROGRAM],
            cwd=mirror,
            env={**env, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )
        try:
            answer = talk(process, line, SECONDS)
        except subprocess.TimeoutExpired:
            what = f"DVC has not copied all objects in {SECONDS // 3600} hours"
            raise LabError(what, AGAIN) from None
        finally:
            process.kill()
            process.communicate()
    if not answer:
        reason = find_reason(log.read_text("utf-8", "replace"))
        raise LabError(f"DVC fails to copy the objects: {reason}", AGAIN, log)
    found: dict[str, Any] = json.loads(answer)
    return found


def refuse_unreadable_remotes(said: Mapping[str, Any]) -> None:
    """Raise LabError unless what is missing now will be missing at another attempt, too."""
    missing = said["missing"]
    for remote in said["remotes"]:
        shown = f"the origin's remote {remote['name']} ({remote['url']})"
        if missing and remote["newest"] and remote["error"]:
            raise LabError(f"{shown} can't be read: {remote['error']}", ACCESS)
        if missing and remote["unsettled"]:
            raise LabError(f"{shown} broke off: {remote['unsettled']}", AGAIN)
    if missing and not said["objects"]:
        what = f"none of the origin's {len(missing)} objects is to be had: {missing[0]['why']}"
        raise LabError(what, ACCESS)
