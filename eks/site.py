"""One environment and what its commands need: AWS's clients, its ledger, its folder."""

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
    """One thing that a plan would make: a row of the table that a person reads."""

    kind: str
    name: str
    what: str  # in a few words
    cost: str = ""  # what drives its monthly cost: units and quantities, never prices


@dataclass(frozen=True)
class Site:
    """One environment in use. `folder` is private to its owner and outlives every command."""

    environment: Environment
    aws: Aws
    ledger: Ledger
    folder: Path
    tree: Path = TREE

    @property
    def config(self) -> Config:
        """The kit's configuration for it: where the chart and the attestation are, its own home."""
        return replace(Config.from_environment(), home=self.folder / "home", tree=self.tree)


def create_site(environment: Environment, home: Path, tree: Path = TREE) -> Site:
    """Return the site of an environment, and create its folder, without the network."""
    folder = home / environment.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    aws = Aws(environment.region)
    return Site(environment, aws, Ledger(folder / "ledger.json", environment.place), folder, tree)


def tag_list(environment: Environment) -> list[dict[str, str]]:
    """Return the environment's tags as the list that most of AWS's services take."""
    return [{"Key": key, "Value": value} for key, value in environment.tags.items()]


def tags_from_list(listed: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags of such a list as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in listed}


def is_ours(environment: Environment, tags: Mapping[str, str]) -> bool:
    """Return whether what has these tags was made for this environment, by whichever checkout."""
    return environment.tags.items() <= tags.items()
