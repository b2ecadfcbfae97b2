"""Statistics of a table: each column's numbers or values, over all records and per group.

Memory does not grow with the file: the values of a column that has many are not counted one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypedDict

from dataset_steps.table import Table

MANY = 50  # distinct values of a column above which they are not counted one by one


class Statistics(TypedDict):
    """Statistics of a table, serializable as JSON."""

    records: int
    columns: dict[str, dict[str, Any]]
    group_by: str
    groups: dict[str, dict[str, Any]]


class Column:
    """Running statistics of a column's values."""

    def __init__(self) -> None:
        self.records = 0
        self.empty = 0
        self.is_number = True
        self.total: int | float = 0
        self.minimum: int | float = math.inf
        self.maximum: int | float = -math.inf
        self.values: Counter[str] | None = Counter()

    def add(self, text: str) -> None:
        self.records += 1
        if not text:
            self.empty += 1
            return
        if self.is_number:
            self.add_number(text)
        if self.values is not None:
            self.values[text] += 1
            if len(self.values) > MANY:
                self.values = None

    def add_number(self, text: str) -> None:
        number = parse_number(text)
        if number is None:
            self.is_number = False
            return
        self.total += number
        self.minimum = min(self.minimum, number)
        self.maximum = max(self.maximum, number)

    def merge(self, other: Column) -> None:
        """Add the other column's records to this one."""
        self.records += other.records
        self.empty += other.empty
        self.is_number = self.is_number and other.is_number
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        both = None if self.values is None or other.values is None else self.values + other.values
        self.values = None if both is None or len(both) > MANY else both

    def mean(self) -> float | None:
        """Return the mean of the values that are not empty, or None when they are not numbers."""
        known = self.records - self.empty
        return round(self.total / known, 6) if self.is_number and known else None

    def summary(self) -> dict[str, Any]:
        """Return the column's statistics, serializable as JSON."""
        if (mean := self.mean()) is not None:
            numbers = {"minimum": self.minimum, "maximum": self.maximum, "mean": mean}
            return {"empty": self.empty, **numbers}
        return {"empty": self.empty, "values": self.values and dict(sorted(self.values.items()))}


def parse_number(text: str) -> int | float | None:
    """Return the text as a number, or None; 1_0 and nan, which Python accepts, are not numbers."""
    if text.isdecimal():
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def compute_statistics(table: Table, group_by: str) -> Statistics:
    """Return the number of records and each column's summary, overall and per value of `group_by`.

    Raise TableError when it is no table with one such column, ValueError when that has too many
    values.
    """
    header = list(table.columns)
    (place,) = table.find_columns([group_by])
    groups = collect_groups(table.rows(), header, place)
    whole = [Column() for _ in header]
    for columns in groups.values():
        for mine, theirs in zip(whole, columns, strict=True):
            mine.merge(theirs)
    return {
        "records": whole[0].records,
        "columns": {name: column.summary() for name, column in zip(header, whole, strict=True)},
        "group_by": group_by,
        "groups": {name: summarise_group(header, groups[name], whole) for name in sorted(groups)},
    }


def collect_groups(
    rows: Iterable[list[str]], header: list[str], place: int
) -> dict[str, list[Column]]:
    """Return the columns of each group. Raise ValueError for more than MANY groups."""
    groups: dict[str, list[Column]] = {}
    for row in rows:
        columns = groups.get(row[place])
        if columns is None:
            columns = groups[row[place]] = [Column() for _ in header]
            if len(groups) > MANY:
                raise ValueError(f"{header[place]!r} has more than {MANY} values to group by")
        for column, text in zip(columns, row, strict=True):
            column.add(text)
    return groups


def summarise_group(
    header: list[str], columns: list[Column], whole: list[Column]
) -> dict[str, Any]:
    """Return the number of records, and the means of the whole table's numeric columns."""
    both = zip(header, columns, whole, strict=True)
    means = {name: column.mean() for name, column, overall in both if overall.is_number}
    return {"records": columns[0].records, "means": means}
