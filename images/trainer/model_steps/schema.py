"""The dataset's columns: their types, the features among them, and how they change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset_steps.errors import StepError
from dataset_steps.key import KEY_NAME

TARGET = "Attrition"  # what the model predicts: one of two values
PART = "dataset_type"  # the dataset's own split
TRAINING, HELD_OUT = "train", "test"  # the values of PART

INTEGER, NUMBER, TEXT = "integer", "number", "text"
FORMS = (
    (INTEGER, re.compile(r"[+-]?\d{1,18}")),
    (NUMBER, re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")),
)


@dataclass(frozen=True)
class Schema:
    """The columns of one version of the dataset, in their order, and their types."""

    columns: dict[str, str]

    @property
    def features(self) -> list[str]:
        """The columns that a model learns from: not the answer, not the split, no key."""
        others = {TARGET, PART}
        return [n for n in self.columns if n not in others and not KEY_NAME.fullmatch(n.strip())]

    @property
    def categories(self) -> list[int]:
        """The positions of the features that hold text."""
        return [i for i, name in enumerate(self.features) if self.columns[name] == TEXT]

    def text(self) -> str:
        """Return the JSON that is committed beside the model, and documents the model's input."""
        content = {"target": TARGET, "features": self.features, "columns": self.columns}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> Schema | None:
    """Read the schema in a file; None if there is no such file. Raise StepError."""
    try:
        return parse(path.name, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def parse(name: str, text: str) -> Schema:
    """Return the schema in the text of a file. Raise StepError, which names the file."""
    try:
        columns = json.loads(text)["columns"]
        return Schema({str(column): str(kind) for column, kind in columns.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(
            f"{name} in the repository is not a schema: restore it by git ({error})"
        ) from error


def check_header(header: list[str]) -> list[str]:
    """Return the header, or raise StepError when no model can be trained on these columns."""
    if len(set(header)) < len(header):
        raise StepError(f"the dataset names a column twice: {', '.join(header)}")
    if missing := [name for name in (TARGET, PART) if name not in header]:
        raise StepError(
            f"the dataset has no column {' and no column '.join(missing)}, which the training "
            f"needs; it has {', '.join(header)}"
        )
    return header


def widen(kind: str | None, value: str) -> str | None:
    """Return the type of a column of type `kind` (None: no value yet) that holds `value`, too."""
    if not value or kind == TEXT:
        return kind
    narrowest = INTEGER if kind is None else kind
    kinds = [name for name, _ in FORMS]
    for name, form in FORMS[kinds.index(narrowest) :]:
        if form.fullmatch(value):
            return name
    return TEXT


def find_changes(old: Schema, new: Schema) -> list[str]:
    """List the differences between two schemas, regardless of the columns' order."""
    before, now = old.columns, new.columns
    missing = [f"{name!r} is missing" for name in before if name not in now]
    added = [f"{name!r} is new" for name in now if name not in before]
    changed = [
        f"{name!r} is {now[name]} and was {kind}"
        for name, kind in before.items()
        if name in now and now[name] != kind
    ]
    return missing + added + changed


def refuse_changes(changes: Iterable[str], commit: str) -> None:
    """Raise StepError when there is a change: the newest model stays as it is."""
    if listed := "; ".join(changes):
        raise StepError(
            f"the schema of data commit {commit} is not the newest model's: {listed}. Nothing was "
            "changed. Train on another data_commit, mend the dataset, or run this again with "
            "accept_schema_change to have models of the new schema"
        )
