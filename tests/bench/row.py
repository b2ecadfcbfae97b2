"""One row of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A measure of the lab and of the plain way, in seconds or another unit."""

    what: str
    lab: float
    plain: float | None = None
    goal: str = ""
    unit: str = "s"

    def cells(self) -> tuple[str, str, str, str, str]:
        plain = "" if self.plain is None else f"{self.plain:.2f} {self.unit}"
        ratio = "" if not self.plain else f"{self.lab / self.plain:.2f}"
        return self.what, f"{self.lab:.2f} {self.unit}", plain, ratio, self.goal
