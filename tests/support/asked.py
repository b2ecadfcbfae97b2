"""Which versions the tests' own runs made: the nightly run may fall into a test, too."""

from __future__ import annotations

from collections.abc import Iterable

from lab.model import Version


def run_ids(versions: Iterable[Version]) -> list[str]:
    """The runs that made these versions, but for those of a schedule, sorted."""
    found = [version.trailers["Run-Id"] for version in versions]
    return sorted(name for name in found if not name.startswith("scheduled__"))
