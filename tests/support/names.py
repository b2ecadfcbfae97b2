"""Names of files that programs get wrong."""

from __future__ import annotations

import unicodedata

ODD = (
    "a b",
    " ",
    "-rf",
    "größe",
    unicodedata.normalize("NFD", "größe"),
    "n" * 255,
    "ü" * 127,
    "A",
    "a",
    "tab\tand\nline",
    "back\\slash",
    "quote\"s'",
    "*?[x]",
    "#comment",
    "!not",
    "実験 1/その 2/c",
    "deep/" * 60 + "end",
    ".hidden",
    "in.dvc/dvc.lock",
)
