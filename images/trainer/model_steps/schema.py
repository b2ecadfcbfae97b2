"""The dataset's columns: what they hold, which of them a model learns from, how they change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset_steps.errors import StepError
from dataset_steps.record import KEY_NAME

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
    """The columns of one version of the dataset, in their order, and what each holds."""

    columns: dict[str, str]

    @property
    def features(self) -> list[str]:
        """What a model learns from: neither the answer, nor the split, nor what names a record."""
        others = {TARGET, PART}
        return [n for n in self.columns if n not in others and not KEY_NAME.fullmatch(n.strip())]

    @property
    def categories(self) -> list[int]:
        """The places of the features that hold text."""
        return [i for i, name in enumerate(self.features) if self.columns[name] == TEXT]

    def text(self) -> str:
        """As it is committed beside the model: whoever has the model knows what to give it."""
        content = {"target": TARGET, "features": self.features, "columns": self.columns}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> Schema | None:
    """The schema in a file, or None where there is no such file. Raises StepError."""
    try:
        columns = json.loads(path.read_text(encoding="utf-8"))["columns"]
        return Schema({str(name): str(kind) for name, kind in columns.items()})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(
            f"{path.name} in the repository is not a schema: restore it by git ({error})"
        ) from error


def named(header: list[str]) -> list[str]:
    """The header, or StepError when a model can't be trained on columns of these names."""
    if len(set(header)) < len(header):
        raise StepError(f"the dataset names a column twice: {', '.join(header)}")
    if missing := [name for name in (TARGET, PART) if name not in header]:
        raise StepError(
            f"the dataset has no column {' and no column '.join(missing)}, which the training "
            f"needs; it has {', '.join(header)}"
        )
    return header


def widened(kind: str | None, value: str) -> str | None:
    """What a column holds that held `kind` so far (None: nothing yet) and holds `value` as well."""
    if not value or kind == TEXT:
        return kind
    narrowest = INTEGER if kind is None else kind
    kinds = [name for name, _ in FORMS]
    for name, form in FORMS[kinds.index(narrowest) :]:
        if form.fullmatch(value):
            return name
    return TEXT


def drift(old: Schema, new: Schema) -> list[str]:
    """What is different between two schemas; the columns' order is not."""
    before, now = old.columns, new.columns
    missing = [f"{name!r} is missing" for name in before if name not in now]
    added = [f"{name!r} is new" for name in now if name not in before]
    changed = [
        f"{name!r} is {now[name]} and was {kind}"
        for name, kind in before.items()
        if name in now and now[name] != kind
    ]
    return missing + added + changed


def refuse(changes: Iterable[str], commit: str) -> None:
    """Raises StepError when there is a change: the newest model stays as it is."""
    if listed := "; ".join(changes):
        raise StepError(
            f"the schema of data commit {commit} is not the newest model's: {listed}. Nothing was "
            "changed. Train on another data_commit, mend the dataset, or run this again with "
            "accept_schema_change to have models of the new schema"
        )
