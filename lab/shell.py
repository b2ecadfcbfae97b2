"""Running commands: their output is captured, and an error has it when one fails."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Timer
from typing import IO, cast

from lab.errors import LabError

TAIL_LINES = 20
WORD = re.compile(r"[a-z][a-z_-]*")  # of a command's name: no option, path or number
MOST_WORDS = 2


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    fix: str = "its log has all that it printed",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    accepted: Collection[int] = (0,),
) -> str:
    """Run a command and return its standard output. Raises LabError with the reason in one line.

    The error's `output` has all that it printed. `timeout` is in seconds; an exit code among
    `accepted` is no failure.
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
    except subprocess.TimeoutExpired as late:
        what = f"{name_command(words)} took more than {timeout:.0f} s"
        raise command_error(what, words, fix, late.stdout, late.stderr) from None
    except FileNotFoundError:
        raise LabError(f"there is no command {words[0]!r}", f"install {words[0]}") from None
    if done.returncode not in accepted:
        what = f"{name_command(words)} {describe_end(done)}"
        raise command_error(what, words, fix, done.stdout, done.stderr)
    return done.stdout


def command_error(
    what: str, words: Sequence[str], fix: str, *printed: str | bytes | None
) -> LabError:
    """Return the error of a command with all that it printed; a traceback shows its tail."""
    error = LabError(what, fix)
    error.program = name_command(words).split()[0]
    texts = (
        each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in printed
    )
    error.output = "\n".join([f"+ {shlex.join(words)}", *(text.rstrip() for text in texts if text)])
    error.add_note(tail(error.output))
    return error


def describe_end(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a program ended that did not end well, and why if it said so."""
    from lab.reasons import find_reason

    reason = find_reason(done.stderr) or find_reason(done.stdout)
    if done.returncode < 0:
        number = -done.returncode
        how = f"was ended by signal {number} ({signal.strsignal(number)})"
        return f"{how}: {reason}" if reason else how
    return f"failed: {reason}" if reason else f"exited with code {done.returncode}, saying nothing"


def name_command(words: Sequence[str]) -> str:
    """Return what a person calls a command: `docker image inspect`, `dvc pull`.

    Options and paths are left out, and the Python that runs a module or a script.
    """
    program, *rest = words
    if Path(program).name.startswith("python"):
        while rest and rest[0].startswith("-") and rest[0] not in {"-m", "-c"}:
            rest.pop(0)
        if rest and rest[0] == "-m":
            rest.pop(0)
        if rest and rest[0] != "-c":
            program = rest.pop(0)
    names = [Path(program).name]
    for word in rest[:MOST_WORDS]:
        if not WORD.fullmatch(word):
            break
        names.append(word)
    return " ".join(names)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of `text`, indented."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])


def talk(process: subprocess.Popen[str], line: str, timeout: float) -> str:
    """Write a line to a process, and return the one that it answers; none when it has ended.

    Its input stays open. Raises TimeoutExpired, and ends the process, when it does not answer
    within `timeout` seconds.
    """
    given, said = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    late = Event()
    timer = Timer(timeout, end_late, (process, late))
    timer.start()
    answer = ""
    try:
        with suppress(BrokenPipeError):
            print(line, file=given, flush=True)
            answer = said.readline()
    finally:
        timer.cancel()
    if not answer and late.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout)
    return answer


def end_late(process: subprocess.Popen[str], late: Event) -> None:
    late.set()
    process.kill()
