"""How a plan is drawn: differences by their reasons, and what would be made."""

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

MOST_OBJECTS, MOST_FIELDS, MOST_LETTERS = 6, 4, 56  # of allowed differences, in one place
BEFORE = 12  # letters before the first one in which two long texts differ
ABSENT = "—"
HEADINGS = ("object", "field", "kind", "EKS")
# Where most fields of a pod are, and which of its containers they are of.
IN_A_POD = re.compile(r"^(pod_template_file\.yaml\.|spec\.template\.|template\.)spec\.")
CONTAINER = re.compile(r"\b(c|initC)ontainers\[[^]]+\]")
Cells = tuple[str, str, str]  # field, kind, EKS


def compared(judged: Sequence[tuple[Difference, str | None]]) -> Group:
    """The differences by their reasons: those without one in red, and each of them."""
    shown: list[RenderableType] = [Text("Differences from kind", "bold"), blank(HEADINGS, "dim")]
    by_reason: dict[str | None, list[Difference]] = {}
    for row, reason in judged:
        by_reason.setdefault(reason, []).append(row)
    for reason, rows in by_reason.items():
        title = reason or f"NOT ALLOWED by {PROMOTION}"
        shown.append(Text(f"{title} ({len(rows)})", "cyan" if reason else "bold red"))
        shown.append(table(rows, allowed=reason is not None))
    if not judged:
        shown.append(Text("  none"))
    return Group(*shown, "")


def table(rows: Iterable[Difference], *, allowed: bool) -> Table:
    """Differences of one reason; what is said of many objects stands once."""
    drawn = blank()
    for cells in folded(rows) if allowed else ((row.object, *said(row)) for row in rows):
        drawn.add_row(*map(Text, cells), style="" if allowed else "red")
    return drawn


def blank(cells: Sequence[str] = (), style: str = "") -> Table:
    """A table of four columns, as wide as every other; with a row, or none yet."""
    drawn = Table(box=None, show_header=False, expand=True, padding=(0, 2, 0, 2))
    for ratio in (4, 4, 3, 3):
        drawn.add_column(ratio=ratio, overflow="fold")
    if cells:
        drawn.add_row(*cells, style=style)
    return drawn


def folded(rows: Iterable[Difference]) -> Iterator[tuple[str, str, str, str]]:
    """The rows of allowed differences: what is the same in many containers and objects stands
    once, and of many fields the first ones."""
    alike: dict[Cells, dict[str, None]] = {}
    for row in rows:
        field, one, other = said(row)
        field = CONTAINER.sub("containers[…]", IN_A_POD.sub("", field))
        alike.setdefault((field, one, other), {})[row.object] = None
    by_objects: dict[str, list[Cells]] = {}
    for cells, objects in alike.items():
        by_objects.setdefault(names([*objects]), []).append(cells)
    for shown, fields in by_objects.items():
        for index, cells in enumerate(fields[:MOST_FIELDS]):
            yield "" if index else shown, *cells
        if len(fields) > MOST_FIELDS:
            yield "", f"… and {len(fields) - MOST_FIELDS} more", "", ""


def said(row: Difference) -> Cells:
    """The field and what the two sides say, short enough to be read side by side."""
    return "the whole object" if row.field == WHOLE else row.field, *beside(row.kind, row.eks)


def beside(one: str | None, other: str | None) -> tuple[str, str]:
    """Two values, each in a line; long ones from where they begin to differ."""
    left, right = (ABSENT if value is None else " ".join(value.split()) for value in (one, other))
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )
    start = max(0, same - BEFORE)
    return shortened(left, start), shortened(right, start)


def shortened(text: str, start: int) -> str:
    """The text, or that part of it which begins at `start`."""
    if len(text) <= MOST_LETTERS:
        return text
    start = min(start, len(text) - MOST_LETTERS)
    end = start + MOST_LETTERS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def names(objects: Sequence[str]) -> str:
    """Objects, those of one kind and namespace in a line, and not too many lines."""
    found = []
    for place, group in groupby(objects, key=lambda name: name.rpartition("/")[0]):
        found.append(f"{place}/{', '.join(name.rpartition('/')[2] for name in group)}")
    more = [f"… and {len(found) - MOST_OBJECTS} lines more"] if len(found) > MOST_OBJECTS else []
    return "\n".join([*found[:MOST_OBJECTS], *more])


def made(rows: Iterable[Row]) -> Group:
    """What AWS and the cluster would have, and what drives its monthly cost."""
    drawn = Table("", "", "", "units that cost", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for row in rows:
        drawn.add_row(*map(Text, (row.kind, row.name, row.what, row.cost)))
    title = Text("Made or completed by apply, and what drives its monthly cost", "bold")
    return Group(title, Padding(drawn, (0, 0, 0, 2)), "")
