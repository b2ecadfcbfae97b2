"""`transform`: for each department how many work there, what they earn, how many left."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from dataset_steps.errors import StepError
from dataset_steps.files import write_whole
from dataset_steps.workspace import Workspace

DEPARTMENT, INCOME, ATTRITION = COLUMNS = ("Job Role", "Monthly Income", "Attrition")
EXTRACT, SUMMARY = "extract.csv", "summary.json"  # in the workspace
LEFT, STAYED = "Left", "Stayed"
MOST_COPIES = 10_000


@dataclass
class Department:
    """The sums of one department."""

    heads: int = 0
    income: Decimal = Decimal(0)
    left: int = 0

    def add(self, income: Decimal, left: bool) -> None:
        self.heads += 1
        self.income += income
        self.left += left

    def summary(self) -> dict[str, Any]:
        return {
            "head_count": self.heads,
            "mean_income": float(round(self.income / self.heads, 2)),
            "attrition_rate": round(self.left / self.heads, 4),
        }


def transform(workspace: Workspace, env: Mapping[str, str]) -> None:
    """The workspace holds the summary of its extract.

    All copies are in memory at once, though one would do: with COPIES a person sees what a step
    that needs more memory than it may have looks like.
    """
    tables = [table(workspace.root / EXTRACT) for _ in range(copies(env))]
    summary = summarise(tables[0])
    write_whole(workspace.root / SUMMARY, json.dumps(summary))
    print(f"summarised {len(tables[0])} records of {len(summary)} departments")


def copies(env: Mapping[str, str]) -> int:
    """How many copies of the extract are handled at once. Raises StepError."""
    text = env.get("COPIES", "1")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_COPIES:
        raise StepError(f"COPIES is {text!r}, not a whole number from 1 to {MOST_COPIES}")
    return int(text)


def table(path: Path) -> list[list[str]]:
    """The records of the extract. Raises StepError when there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            next(rows)
            return list(rows)
    except FileNotFoundError:
        raise StepError(
            "nothing was extracted into this run's workspace: run the extract step first"
        ) from None


def summarise(rows: Iterable[list[str]]) -> dict[str, dict[str, Any]]:
    """Each department's summary, sorted by name. Raises StepError for a value that is none."""
    departments: dict[str, Department] = {}
    for number, (department, income, attrition) in enumerate(rows, 1):
        if attrition not in {LEFT, STAYED}:
            raise unusable(number, ATTRITION, attrition, f"{LEFT} or {STAYED}")
        sums = departments.setdefault(department, Department())
        sums.add(amount(number, income), attrition == LEFT)
    return {name: departments[name].summary() for name in sorted(departments)}


def amount(number: int, text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise unusable(number, INCOME, text, "a number")
    return found


def unusable(number: int, column: str, value: str, wanted: str) -> StepError:
    return StepError(
        f"record {number} of the dataset has {value[:60]!r} as {column}, which is not {wanted}; "
        f"a summary is made of {', '.join(COLUMNS)}"
    )
