"""The tables of a plan: differences grouped by reason, and what would be made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, takewhile

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eks.difference import PROMOTION, WHOLE, Difference
from eks.site import Row

MOST_OBJECTS, MOST_FIELDS, MOST_LETTERS = 6, 4, 56  # shown per group of allowed differences
BEFORE = 12  # letters shown before the first one in which two long texts differ
ABSENT = "—"
HEADINGS = ("object", "field", "kind", "EKS")
# The path prefix of most fields of a pod, and the container in it.
IN_A_POD = re.compile(r"^(pod_template_file\.yaml\.|spec\.template\.|template\.)spec\.")
CONTAINER = re.compile(r"\b(c|initC)ontainers\[[^]]+\]")
Cells = tuple[str, str, str]  # field, kind, EKS


def render_differences(judged: Sequence[tuple[Difference, str | None]]) -> Group:
    """Render the differences by reason; those that nothing allows in red and in full."""
    shown: list[RenderableType] = [
        Text("Differences from kind", "bold"),
        create_table(HEADINGS, "dim"),
    ]
    by_reason: dict[str | None, list[Difference]] = {}
    for row, reason in judged:
        by_reason.setdefault(reason, []).append(row)
    for reason, rows in by_reason.items():
        title = reason or f"NOT ALLOWED by {PROMOTION}"
        shown.append(Text(f"{title} ({len(rows)})", "cyan" if reason else "bold red"))
        shown.append(differences_table(rows, allowed=reason is not None))
    if not judged:
        shown.append(Text("  none"))
    return Group(*shown, "")


def differences_table(rows: Iterable[Difference], *, allowed: bool) -> Table:
    """Return the table of the differences of one reason; allowed ones are folded."""
    drawn = create_table()
    for cells in fold_rows(rows) if allowed else ((row.object, *row_cells(row)) for row in rows):
        drawn.add_row(*map(Text, cells), style="" if allowed else "red")
    return drawn


def create_table(cells: Sequence[str] = (), style: str = "") -> Table:
    """Create a table of four columns of fixed ratios, with one row if `cells` are given."""
    drawn = Table(box=None, show_header=False, expand=True, padding=(0, 2, 0, 2))
    for ratio in (4, 4, 3, 3):
        drawn.add_column(ratio=ratio, overflow="fold")
    if cells:
        drawn.add_row(*cells, style=style)
    return drawn


def fold_rows(rows: Iterable[Difference]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of allowed differences: the same one in several containers or objects once,
    and at most MOST_FIELDS fields for each group of objects."""
    alike: dict[Cells, dict[str, None]] = {}
    for row in rows:
        field, one, other = row_cells(row)
        field = CONTAINER.sub("containers[…]", IN_A_POD.sub("", field))
        alike.setdefault((field, one, other), {})[row.object] = None
    by_objects: dict[str, list[Cells]] = {}
    for cells, objects in alike.items():
        by_objects.setdefault(format_objects([*objects]), []).append(cells)
    for shown, fields in by_objects.items():
        for index, cells in enumerate(fields[:MOST_FIELDS]):
            yield "" if index else shown, *cells
        if len(fields) > MOST_FIELDS:
            yield "", f"… and {len(fields) - MOST_FIELDS} more", "", ""


def row_cells(row: Difference) -> Cells:
    """Return the field and its two values, shortened to be read side by side."""
    return "the whole object" if row.field == WHOLE else row.field, *shorten_pair(row.kind, row.eks)


def shorten_pair(one: str | None, other: str | None) -> tuple[str, str]:
    """Return two values on one line each; long ones cut to start near their first difference."""
    left, right = (ABSENT if value is None else " ".join(value.split()) for value in (one, other))
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )
    start = max(0, same - BEFORE)
    return shorten_text(left, start), shorten_text(right, start)


def shorten_text(text: str, start: int) -> str:
    """Return the text, or if it is too long, MOST_LETTERS of it from `start` on."""
    if len(text) <= MOST_LETTERS:
        return text
    start = min(start, len(text) - MOST_LETTERS)
    end = start + MOST_LETTERS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def format_objects(objects: Sequence[str]) -> str:
    """Format object names, one line per kind and namespace, at most MOST_OBJECTS lines."""
    found = []
    for place, group in groupby(objects, key=lambda name: name.rpartition("/")[0]):
        found.append(f"{place}/{', '.join(name.rpartition('/')[2] for name in group)}")
    more = [f"… and {len(found) - MOST_OBJECTS} lines more"] if len(found) > MOST_OBJECTS else []
    return "\n".join([*found[:MOST_OBJECTS], *more])


def render_resources(rows: Iterable[Row]) -> Group:
    """Render what would be made in AWS and the cluster, and what drives its monthly cost."""
    drawn = Table("", "", "", "units that cost", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for row in rows:
        drawn.add_row(*map(Text, (row.kind, row.name, row.what, row.cost)))
    title = Text("Made or completed by apply, and what drives its monthly cost", "bold")
    return Group(title, Padding(drawn, (0, 0, 0, 2)), "")
