"""Running commands: their output is captured, and is in the error when one fails."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

TAIL_LINES = 20


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    fix: str = "read the output above",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """Run a command and return its standard output. Raises LabError with its output's tail.

    `timeout` is in seconds.
    """
    words = [os.fspath(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            input=stdin,
            timeout=timeout,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{shlex.join(words)} took more than {timeout:.0f} s", fix) from None
    except FileNotFoundError:
        raise LabError(f"there is no command {words[0]!r}", f"install {words[0]}") from None
    if done.returncode:
        output = tail(done.stdout + done.stderr)
        raise LabError(f"{shlex.join(words)} exited with code {done.returncode}\n{output}", fix)
    return done.stdout


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of `text`, indented."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])
