"""The choices a user can make, and the two trees: the only module that reads LAB_* variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lab.errors import HomeError, LabError
from lab.project import Project, find_root, read_project

PACKAGE = Path(__file__).resolve().parent
# The kit's own resources: manifests, images' contexts, locks, samples. A wheel has them in `kit/`.
KIT = PACKAGE / "kit" if (PACKAGE / "kit").is_dir() else PACKAGE.parent
DISTRIBUTION = "mlops-lab"  # the kit's, which no index is asked for
CHECKOUT = KIT if PACKAGE.parent == KIT else None  # has a project of its own, the samples
PLUGINS = Path("manifests", "base", "plugins")  # Airflow's, on every backend
TABLE_DAG = "dataset_pipeline"  # the sample that appends a record to a table
DATABASES = ("sqlite", "postgresql")
PORT_PREFIX = "LAB_PORT_"


@dataclass(frozen=True)
class Config:
    """One lab's choices. Paths are absolute; nothing is read or made before a command needs it."""

    home: Path
    backend: str = "auto"
    database: str | None = None
    dataset: Path | None = None
    ports: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    require: str | None = None
    chart: Path | None = None
    attestation: Path | None = None  # file that attests a green end-to-end test on kind
    attestation_key: Path | None = None  # file of the key that signs it
    root: Path = KIT  # the folder of the project
    kit: Path = KIT

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Config:
        """Read the choices from LAB_* variables. Raises LabError for an invalid one.

        Raises ProjectError when neither they nor the working directory name a project.
        """
        root = find_root(env.get("LAB_PROJECT"), Path.cwd(), CHECKOUT)
        return cls(
            home=parse_home(env.get("LAB_HOME") or root / ".lab"),
            root=root,
            backend=env.get("LAB_BACKEND") or "auto",
            database=parse_database(env.get("LAB_DATABASE") or None),
            ports=parse_ports(env),
            require=env.get("LAB_REQUIRE") or None,
            chart=parse_file(env.get("LAB_AIRFLOW_CHART")),
            attestation=parse_file(env.get("LAB_ATTESTATION")),
            attestation_key=parse_file(env.get("LAB_ATTESTATION_KEY")),
        )

    @property
    def project(self) -> Project:
        """What the project declares now. Raises ProjectError when it can't be right."""
        return read_project(self.root, samples=self.kit)

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def run(self) -> Path:
        """The folder of the services' pid files."""
        return self.home / "run"

    @property
    def shared(self) -> Path:
        """The folder that the steps of a run share: `/shared` on a cluster."""
        return self.home / "shared"


def parse_file(path: str | None) -> Path | None:
    """Return the absolute path of the file that a variable names, or None when it names none."""
    return Path(path).absolute() if path else None


def parse_home(path: str | Path) -> Path:
    """Return `path` resolved: a lab's processes are recognised by this spelling of it.

    Raises HomeError when it can't be resolved.
    """
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError as error:  # no such user, or links in a circle
        raise HomeError(f"LAB_HOME={path} leads nowhere: {error}", "give its whole path") from error


def is_debug(env: Mapping[str, str] = os.environ) -> bool:
    """Return whether errors are shown with a traceback."""
    return env.get("LAB_DEBUG", "") not in ("", "0")


def parse_database(name: str | None) -> str | None:
    """Return `name`. Raises LabError when Airflow's metadata can't be kept in such a database."""
    if name is not None and name not in DATABASES:
        raise LabError(f"unknown database {name!r}", f"choose one of {', '.join(DATABASES)}")
    return name


def parse_ports(env: Mapping[str, str]) -> Mapping[str, int]:
    """Return the ports that LAB_PORT_<SERVICE> pins, by service.

    Raises LabError for one out of range.
    """
    pinned = {}
    for name, value in env.items():
        if name.startswith(PORT_PREFIX) and value:
            if not re.fullmatch("[0-9]{4,5}", value) or not 1024 <= int(value) <= 65535:
                raise LabError(f"{name}={value} is no port", "choose one from 1024 to 65535")
            pinned[name.removeprefix(PORT_PREFIX).lower().replace("_", "-")] = int(value)
    return MappingProxyType(pinned)
