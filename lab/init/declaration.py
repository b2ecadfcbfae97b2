"""The text of a lab.toml: what is written into it, without a change of its comments and order."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping

from lab.errors import ProjectError
from lab.project import FILE

KIT_TABLE = re.compile(r"^\[kit\].*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
DATA_TABLES = re.compile(r"^\[data\..*\Z", re.MULTILINE | re.DOTALL)


def name_kit(text: str, version: str, sha256: str) -> str:
    """Return the text of a lab.toml that names this kit. Raises ProjectError where it can't be."""
    wanted = {"version": version, "sha256": sha256}
    changed = KIT_TABLE.sub(lambda found: set_values(found[0], wanted), text, count=1)
    before, after = (tomllib.loads(each) for each in (text, changed))
    if after != {**before, "kit": {**before.get("kit", {}), **wanted}}:
        raise ProjectError(
            f"{FILE} has a form in which the kit can't be replaced",
            f'write below [kit]: version = "{version}", sha256 = "{sha256}"',
        )
    return changed


def set_values(table: str, values: Mapping[str, str]) -> str:
    """Return the text of a table with these values, each on a line that is there already."""
    for key, value in values.items():
        line = re.compile(rf"""^(\s*{key}\s*=\s*)("[^"\n]*"|'[^'\n]*')""", re.MULTILINE)
        table = line.sub(lambda found, value=value: f"{found[1]}{quote(value)}", table)  # type: ignore[misc]
    return table


def name_data(text: str, data: Mapping[str, str]) -> str:
    """Return the text of a lab.toml whose last tables, its data sets, are these."""
    tables = (f"[data.{name}]\npath = {quote(path)}\n" for name, path in data.items())
    return DATA_TABLES.sub(lambda _: "\n".join(tables), text)


def quote(value: str) -> str:
    """Return a string of TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
