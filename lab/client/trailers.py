"""The trailers of data commits: what a run or an import says of the data sets that it changed."""

from __future__ import annotations

from collections.abc import Iterable

from lab.model import Source, Version

HAND = "hand"  # what made a version that neither a run nor an import has made
SOURCE = ("From-Path", "From-Commit", "From-Md5")
# The trailers that follow each other in a group, by the first one.
GROUPS = {"Data-Path": {"Data-Md5", "Data-Size", "Data-Parent"}, "From-Path": {*SOURCE[1:]}}


def split_trailers(text: str) -> tuple[tuple[str, str], ...]:
    """Return the trailers of a commit as pairs, in their order: some come several times."""
    pairs = (line.partition(": ") for line in text.split("\x1e") if line)
    return tuple((key, value) for key, _, value in pairs)


def parse_trailers(
    pairs: Iterable[tuple[str, str]], path: str
) -> tuple[dict[str, str], tuple[Source, ...]]:
    """Return the trailers that concern the data set at `path`, and what its run has read.

    A group begins at a path: of the groups of data sets, it is that of this one. Outside of any
    group `Data-Md5` and its like are of commits that named other data, and are left as they are.
    """
    common: dict[str, str] = {}
    groups: list[dict[str, str]] = []
    for key, value in pairs:
        if key in GROUPS:
            groups.append({key: value})
        elif groups and key in GROUPS[next(iter(groups[-1]))]:
            groups[-1][key] = value
        else:
            common[key] = value
    for group in groups:
        common |= group if group.get("Data-Path") == path else {}
    said = [[group.get(key, "") for key in SOURCE] for group in groups if "From-Path" in group]
    return common, tuple(Source(*each) for each in said)


def find_maker(version: Version) -> str:
    """Return what made a version: "run", "import" or "hand", by the trailers about it.

    Runs that trained a model once wrote no path: the MD5 is all that says so.
    """
    said = version.trailers
    if "Data-Path" in said:
        return "run" if "Run-Id" in said else "import"
    return "run" if "Run-Id" in said and said.get("Model-Md5") == version.md5 else HAND
