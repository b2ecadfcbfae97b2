"""`transform`: summarise head count, income and attrition of each department."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from dataset_steps.errors import StepError
from dataset_steps.files import read_blocks, write_atomically
from dataset_steps.table import Table
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
    """Write the summary of the workspace's extract to the workspace.

    All copies are in memory at once, though one would do: COPIES lets a person see a step exceed
    its memory limit.
    """
    tables = [read_extract(workspace.root / EXTRACT) for _ in range(parse_copies(env))]
    summary = summarise(tables[0])
    write_atomically(workspace.root / SUMMARY, json.dumps(summary))
    print(f"summarised {len(tables[0])} records of {len(summary)} departments")


def parse_copies(env: Mapping[str, str]) -> int:
    """Return how many copies of the extract are held in memory at once. Raise StepError."""
    text = env.get("COPIES", "1")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_COPIES:
        raise StepError(f"COPIES is {text!r}, not a whole number from 1 to {MOST_COPIES}")
    return int(text)


def read_extract(path: Path) -> list[list[str]]:
    """Return the records of the extract. Raise StepError when there is no extract."""
    try:
        with path.open("rb") as file:
            return list(Table(read_blocks(file), path.name).rows())
    except FileNotFoundError:
        raise StepError(
            "nothing was extracted into this run's workspace: run the extract step first"
        ) from None


def summarise(rows: Iterable[list[str]]) -> dict[str, dict[str, Any]]:
    """Return each department's summary, sorted by name. Raise StepError for an unusable value."""
    departments: dict[str, Department] = {}
    for number, (department, income, attrition) in enumerate(rows, 1):
        if attrition not in {LEFT, STAYED}:
            raise unusable_value(number, ATTRITION, attrition, f"{LEFT} or {STAYED}")
        sums = departments.setdefault(department, Department())
        sums.add(parse_amount(number, income), attrition == LEFT)
    return {name: departments[name].summary() for name in sorted(departments)}


def parse_amount(number: int, text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise unusable_value(number, INCOME, text, "a number")
    return found


def unusable_value(number: int, column: str, value: str, wanted: str) -> StepError:
    return StepError(
        f"record {number} of the dataset has {value[:60]!r} as {column}, which is not {wanted}; "
        f"a summary is made of {', '.join(COLUMNS)}"
    )
