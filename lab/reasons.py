"""Why a program failed, in one line: the last one of its output that says something."""

from __future__ import annotations

import re
from itertools import pairwise

LONGEST = 300  # characters
TRACEBACK = "Traceback (most recent call last):"
# Compiled when a program has failed, and not before: most commands need none of them.
ESCAPE = r"\x1b\[[0-9;?]*[A-Za-z]"
# What surrounds a reason: advice to read elsewhere, data, and where in a program it happened.
NOISE = r"""(?ix)
    (see|run|try|use)\s+["'`].*["'`].*                        # See 'docker run --help'.
    | (\S+:\s+)?(hint|usage|notice|note)\s*:.* | \[notice\].*
    | for\ more\ (details|information|help).* | view\ build\ details.* | having\ any\ troubles.*
    | is\ your\ cache\ up\ to\ date\?
    | <?https?://\S+>?
    | [\[{]["\[{}\]].* | "[^"]*"\s*:.* | [][{}()<>,;\s]+       # JSON
    | [-=_*#~^+.|\s]+                                          # rulers, and Python's markers
    | traceback\ \(most\ recent.* | file\ ".*",\ line\ \d+.*
    | (during\ handling\ of|the\ above\ exception).*
    | goroutine\ \d+.* | created\ by\ .* | exit\ status\ \d+ | stack\ trace:.* | \[signal\ .*
    | \S+\.go:\d+.* | [\w./*()]+\(((0x|\{0x|\.\.\.).*)?\)      # Go's frames
    """
WARNING = r"(?i)(\S+:\s+)?(warn(ing)?|deprecated|info|debug)\b"
ERROR = r"""(?ix)
    (\S+:\s+)?\W*(error|fatal|panic|failed|failure|could\ not|cannot|can't|unable\ to|refused)\b
    | (\S+:\s+)?permission\ denied\b
    | [\w.]*(?-i:Error|Exception|Exit|Interrupt)(:|$)          # the last line of a traceback
    | .*\b(?-i:ERROR|FATAL|CRITICAL)\b
    """
LABEL = r"(?i)^(error|fatal|panic):\s+"


def find_reason(output: str) -> str:
    """Return the last line that tells of an error, else the last that says anything, or nothing.

    A line that ends in a colon is followed by what it announces.
    """
    lines = list_meaningful_lines(output)
    telling = [number for number, line in enumerate(lines) if re.match(ERROR, line)]
    said = [number for number, line in enumerate(lines) if not re.match(WARNING, line)]
    number = (telling or said or range(len(lines)))[-1:]
    if not number:
        return ""
    found = lines[number[0]]
    following = dict(pairwise(lines))
    if found.endswith(":") and found in following:
        found = f"{found} {following[found]}"
    return shorten(re.sub(LABEL, "", found, count=1))


def list_meaningful_lines(output: str) -> list[str]:
    """Return the lines of an output without noise; of tracebacks only what was raised."""
    lines = [re.sub(ESCAPE, "", line).rstrip() for line in output.splitlines()]
    if TRACEBACK in output:
        lines = [line for line in lines if line[:1] != " "]
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not re.fullmatch(NOISE, line)]


def shorten(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
