"""One environment at work: what it is, where it is in AWS, and what was made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eks.aws import Aws
from eks.environment import Environment
from eks.ledger import Ledger
from lab.config import TREE, Config

HOME = ".lab-eks"  # apart from a lab's home: `lab down --purge` must not forget what is in AWS


@dataclass(frozen=True)
class Row:
    """One thing that a plan would make, for the table that a person reads."""

    kind: str
    name: str
    what: str  # in a few words
    cost: str = ""  # what drives its monthly cost: units and quantities, never prices


@dataclass(frozen=True)
class Site:
    """One environment at work. `folder` is private to its owner and outlives every command."""

    environment: Environment
    aws: Aws
    ledger: Ledger
    folder: Path
    tree: Path = TREE

    @property
    def config(self) -> Config:
        """The kit's choices for it: where the chart and the attestation are, and its own home."""
        return replace(Config.from_environment(), home=self.folder / "home", tree=self.tree)


def at(environment: Environment, home: Path, tree: Path = TREE) -> Site:
    """The site of an environment. Makes its folder, and calls nobody."""
    folder = home / environment.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    aws = Aws(environment.region)
    return Site(environment, aws, Ledger(folder / "ledger.json", environment.place), folder, tree)


def tagged(environment: Environment) -> list[dict[str, str]]:
    """The environment's tags in the form that most of AWS takes."""
    return [{"Key": key, "Value": value} for key, value in environment.tags.items()]


def tags_of(listed: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Tags that AWS gives in that form, by their keys."""
    return {tag["Key"]: tag["Value"] for tag in listed}


def is_ours(environment: Environment, tags: Mapping[str, str]) -> bool:
    """Whether what bears these tags was made for this very environment, by whichever checkout."""
    return environment.tags.items() <= tags.items()
