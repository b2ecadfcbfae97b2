"""The runs that made versions, without scheduled ones: the nightly run may fall into a test."""

from __future__ import annotations

from collections.abc import Iterable

from lab.model import Version


def run_ids(versions: Iterable[Version]) -> list[str]:
    """List the ids of the runs that made these versions, sorted, without scheduled runs."""
    found = [version.trailers["Run-Id"] for version in versions]
    return sorted(name for name in found if not name.startswith("scheduled__"))
