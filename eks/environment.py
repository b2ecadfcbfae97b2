"""An environment: a person's choices, in one TOML file under `eks/environments/`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from eks.cluster_choices import Choices, find_fault
from lab import data_sets
from lab.config import KIT, TABLE_DAG
from lab.errors import EnvironmentFileError
from lab.project import Project, read_project

FOLDER = Path("eks", "environments")
OPTIONS = Path("manifests", "options")
TAG = "mlops-lab:environment"
CLUSTER_TAG = "mlops-lab:cluster"  # two checkouts may each have a `staging`, in one account
PLACE = ("account", "region", "cluster", "bucket")  # where what was made is found
PRIVATE = "private-repository"  # the option with which Airflow reads the pipelines by a key
BLANK = re.compile(r"\$\{([a-z_]+)\}")
SETTING = re.compile("[a-z][a-z_]*")
# The rules are AWS's own: of the IAM, S3 and EKS documentation.
RULES = {
    "name": re.compile("[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"),  # also a label and a tag
    "account": re.compile(r"\d{12}"),
    "region": re.compile(r"[a-z]{2}(-[a-z]+)+-\d"),
    "branch": re.compile(r"(?![-/.])[A-Za-z0-9._/-]{1,100}(?<![/.])"),
    "bucket": re.compile(r"(?!xn--|sthree-)[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]"),
    "cluster": re.compile(
        r"[A-Za-z0-9][A-Za-z0-9_-]{0,37}"
    ),  # roles are named after it: 64 at most
    "kubernetes": re.compile(r"1\.\d{2}"),
}
# The entries that are no text.
KINDS: dict[str, type] = {
    "make_cluster": bool,
    "options": list,
    "settings": dict,
    "nat_per_zone": bool,
    "public_access_cidrs": list,
    "vpc": dict,
    "sizes": dict,
    "untested_images": bool,
}
TABLE = ".csv"  # what the DAG of the table appends to


@dataclass(frozen=True)
class Environment:
    """Where a lab on AWS is, which branch it follows, and which options are on."""

    name: str
    account: str  # the only one that `apply` and `destroy` touch
    region: str
    branch: str  # of the pipelines' repository: moving it is what promotes DAGs
    bucket: str
    dataset: str  # path of the main data set in the datasets repository, by default lab.toml's
    cluster: str
    make_cluster: bool  # else it exists already
    kubernetes: str
    pipelines: str  # URLs of the repositories
    datasets: str
    attestation_key: str  # the public key that an attestation must be signed with; empty: none
    options: tuple[str, ...]  # folders of manifests/options
    settings: Mapping[str, str]  # what the options ask for
    choices: Choices = field(default_factory=Choices)  # of the cluster
    untested_images: bool = False  # whether images may be others than those that kind ran

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything made in AWS."""
        return {TAG: self.name, CLUSTER_TAG: self.cluster}

    @property
    def makes_network(self) -> bool:
        """Whether an apply makes the cluster's network: somebody else's is left as it is."""
        return self.make_cluster and not self.choices.vpc

    @property
    def place(self) -> dict[str, str]:
        """Where what was made is found again; must not change while any of it exists."""
        return {word: getattr(self, word) for word in PLACE}

    @property
    def words(self) -> dict[str, str]:
        """The values of `${...}` in the files of `eks/` and of `manifests/`."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {name: value for name, value in given.items() if isinstance(value, str)}
        return {**plain, "environment": self.name, **self.settings}

    def fill(self, text: str, where: str | Path, **more: str) -> str:
        """Return `text` with each `${word}` replaced.

        Raises EnvironmentFileError for an unknown one.
        """
        known = {**self.words, **more}

        def word(found: re.Match[str]) -> str:
            if found[1] not in known:
                raise EnvironmentFileError(
                    f"{where} needs {found[1]}, which environment {self.name} does not give",
                    f"add it to [settings] in {FOLDER / self.name}.toml",
                )
            return known[found[1]]

        return BLANK.sub(word, text)


def list_names(root: Path = KIT) -> list[str]:
    """List the environments of a project."""
    return sorted(file.stem for file in (root / FOLDER).glob("*.toml"))


def load(name: str, root: Path = KIT, kit: Path = KIT) -> Environment:
    """Read and check an environment of a project, without the network.

    Raises EnvironmentFileError, and ProjectError for the project's own file.
    """
    if name not in list_names(root):
        raise EnvironmentFileError(
            f"there is no environment {name!r}", f"choose one of {', '.join(list_names(root))}"
        )
    file = root / FOLDER / f"{name}.toml"
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnvironmentFileError(f"{file} is no TOML: {error}", "correct it") from error
    project = read_project(root, samples=kit)
    found = Environment(**parse_entries(name, {"dataset": project.paths[project.main], **given}))
    check_environment(found, kit)
    check_dataset(found, project)
    return found


def parse_entries(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the file's entries.

    Raises EnvironmentFileError when one is missing, unknown or of another type.
    """
    needed = {one.name for one in fields(Environment)} - {"name", "choices", "untested_images"}
    wanted = dict.fromkeys(needed, str) | KINDS
    odd = ({*given} - {*wanted}) | (needed - {*given})
    if odd:
        refuse(name, f"{min(odd)} is {'unknown' if min(odd) in given else 'missing'}")
    for key, value in given.items():
        if type(value) is not wanted[key]:
            refuse(name, f"{key} must be a {wanted[key].__name__}")
    known: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in given.items()}
    chosen = {one.name: known.pop(one.name) for one in fields(Choices) if one.name in known}
    return {"name": name, **known, "choices": Choices(**chosen)}


def check_environment(found: Environment, kit: Path) -> None:
    """Raise EnvironmentFileError for a value that AWS or the kit would refuse later."""
    for key, rule in RULES.items():
        if not rule.fullmatch(getattr(found, key)):
            refuse(found.name, f"{key} = {getattr(found, key)!r} is none")
    check_urls(found)
    known = {folder.name for folder in (kit / OPTIONS).glob("*/")}
    for option in found.options:
        if option not in known:
            refuse(
                found.name, f"there is no option {option!r}; there are {', '.join(sorted(known))}"
            )
    for key, value in found.settings.items():
        if not SETTING.fullmatch(key) or not isinstance(value, str) or "\n" in value:
            refuse(found.name, f"[settings] {key} must be a line of text")
    if fault := find_fault(found.choices, found.options, make_cluster=found.make_cluster):
        refuse(found.name, fault)


def check_dataset(found: Environment, project: Project) -> None:
    """Raise EnvironmentFileError when the project's DAG could not work on the data set there."""
    if why := data_sets.find_fault(PurePosixPath(found.dataset)):
        refuse(found.name, f"dataset = {found.dataset!r} {why}")
    if project.dag == TABLE_DAG and not found.dataset.endswith(TABLE):
        refuse(found.name, f"dataset = {found.dataset!r} is no {TABLE}, and {TABLE_DAG} needs one")


def check_urls(found: Environment) -> None:
    """Raise EnvironmentFileError for a repository that the lab has no credentials for."""
    scheme = "ssh" if PRIVATE in found.options else "https"
    why = f"ssh:// goes with the option {PRIVATE}, and https:// without it"
    check_url(found.name, "pipelines", found.pipelines, scheme, why)
    why = "the steps have a user and a password for it, and no key"
    check_url(found.name, "datasets", found.datasets, "https", why)


def check_url(name: str, key: str, url: str, scheme: str, why: str) -> None:
    """Raise EnvironmentFileError for a URL that git can't use, or one that holds a password.

    The message does not quote the URL: it may hold a password where nobody looks for one.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise environment_error(name, f"{key} is no address: {error}") from error
    if parts.password or (parts.username and scheme == "https"):
        refuse(name, f"{key} holds a user or a password: those go into a Secret")
    if not url.startswith(f"{scheme}://") or not parts.hostname or url.split() != [url]:
        refuse(name, f"{key} is no {scheme}:// address: {why}")


def refuse(name: str, what: str) -> None:
    raise environment_error(name, what)


def environment_error(name: str, what: str) -> EnvironmentFileError:
    return EnvironmentFileError(f"environment {name}: {what}", f"correct {FOLDER / name}.toml")
