"""The files of a new project: the template's, with its own name in place of `churn`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.config import PACKAGE
from lab.init import names

TEMPLATE, TEMPLATE_ORIGIN = (PACKAGE / "init" / name for name in ("template", "template_origin"))
WORD = "churn"
BYTES = {".parquet"}  # of files that are no text
# What a project that takes in a repository has of its own in place of the template's.
LEFT_OUT = ("data", "dags", "tests", f"images/steps/{WORD}_steps")


def write_files(folder: Path, name: str, words: Mapping[str, str], *, takes_in: bool) -> None:
    """Write a project of this name to the folder; `words` are replaced, too."""
    known = {f"{WORD}_": f"{names.as_identifier(name)}_", WORD: name, **words}
    files = dict.fromkeys(list_files(TEMPLATE), TEMPLATE)
    if takes_in:
        files = {path: place for path, place in files.items() if not is_left_out(path)}
        files.update(dict.fromkeys(list_files(TEMPLATE_ORIGIN), TEMPLATE_ORIGIN))
    for path, place in files.items():
        write_file(place / path, folder / replace_words(path, known), known)


def list_files(template: Path) -> Iterator[str]:
    """Yield the path of each file of a template, without byte code that an installer has made."""
    for file in sorted(template.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(template).as_posix()


def is_left_out(path: str) -> bool:
    return any(path.startswith(f"{place}/") for place in LEFT_OUT)


def write_file(source: Path, target: Path, words: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix in BYTES:
        shutil.copyfile(source, target)
    else:
        target.write_text(replace_words(source.read_text("utf-8"), words), "utf-8")


def replace_words(text: str, words: Mapping[str, str]) -> str:
    """Return the text with each of these words replaced; of two that begin alike, the longer."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: words[found[0]], text)


def open_to_all(folder: Path) -> None:
    """Let everybody read a project's files, as in a clone: an image is built of some of them."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if path.relative_to(folder).parts[0] not in (".git", ".origin"):
            path.chmod(0o755 if path.is_dir() else 0o644)
