"""One environment and what its commands need: AWS's clients, its ledger, its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eks.aws import Aws
from eks.environment import Environment
from eks.ledger import Ledger
from lab.config import KIT, Config

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
    root: Path = KIT  # the project's folder
    kit: Path = KIT

    @property
    def config(self) -> Config:
        """The kit's configuration for it: where the chart and the attestation are, its own home."""
        home = self.folder / "home"
        return replace(Config.from_environment(), home=home, root=self.root, kit=self.kit)


def create_site(environment: Environment, home: Path, root: Path, kit: Path = KIT) -> Site:
    """Return the site of an environment, and create its folder, without the network."""
    folder = home / environment.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    aws = Aws(environment.region)
    ledger = Ledger(folder / "ledger.json", environment.place)
    return Site(environment, aws, ledger, folder, root, kit)


def tag_list(environment: Environment) -> list[dict[str, str]]:
    """Return the environment's tags as the list that most of AWS's services take."""
    return [{"Key": key, "Value": value} for key, value in environment.tags.items()]


def tag_filters(environment: Environment) -> dict[str, str]:
    """Return the names and values by which EC2 finds what has the environment's tags."""
    return {f"tag:{key}": value for key, value in environment.tags.items()}


def tags_from_list(listed: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags of such a list as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in listed}


def is_ours(environment: Environment, tags: Mapping[str, str]) -> bool:
    """Return whether what has these tags was made for this environment, by whichever project."""
    return environment.tags.items() <= tags.items()
