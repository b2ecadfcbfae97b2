"""What is done alike on every backend: the frame of `up`, and the phases about DAGs and data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from lab.backends import choices, doctor
from lab.backends.doctor import Checks
from lab.config import Config
from lab.data_sets import read_data_sets
from lab.dataset import first_version
from lab.dataset.employees import EMPLOYEES_NAME
from lab.delivery import publish
from lab.home import processes, state
from lab.home.state import State
from lab.lab import Lab
from lab.layout import DATASETS, PIPELINES, TEAM_A
from lab.progress import Report, phase_title


class Site(Protocol):
    """One lab of a backend: its choices, where its servers are, and what its steps see."""

    @property
    def config(self) -> Config: ...

    @property
    def state(self) -> State: ...

    @property
    def lab(self) -> Lab: ...

    def repository_url(self, repository: str) -> str:
        """Return where this machine reaches a repository of the lab's git server."""

    def has_file(self, repository: str, path: str) -> bool:
        """Return whether the main branch of a repository has a file at `path`."""

    def import_environment(self) -> Mapping[str, str]:
        """Return all that the import of the first version sees: the contract, with credentials."""


S = TypeVar("S", bound=Site)


def bring_up(
    config: Config,
    report: Report,
    check: Callable[[Config], None],
    hold: Callable[[Config], AbstractContextManager[None]],
    settle: Callable[[Config], S],
    phases: Sequence[Callable[[S], None]],
) -> Lab:
    """Check, settle the lab's choices, and run the phases in their order; return the lab.

    No other command changes the lab meanwhile, and `hold` is entered around all that changes it.
    """
    with report("Check this machine and the choices made"):
        check(config)
    with state.exclusive_lock(config), hold(config):
        site = settle(config)
        for phase in phases:
            with report(phase_title(phase)):
                phase(site)
    return site.lab


def check_choices(
    config: Config,
    checks: Checks,
    names: Collection[str],
    owner: Callable[[str], str] = lambda port: port,
) -> dict[str, int]:
    """Refuse what this machine or an earlier `up` does not allow; change nothing.

    `names` are the ports that a lab has, and `owner` names the service of each. Return the ports,
    by name, that have to be free: those whose service does not run.
    """
    doctor.refuse_unfit_machine(config, checks)
    known = state.read_state(config)
    refuse_wrong_declarations(config, known)
    ports = dict(known.ports) if known else {}
    if known:
        choices.refuse_other_choices(config, known)
    choices.refuse_unknown_pins(config, names)
    running = {name for name in ports if processes.find_process(config, owner(name))}
    choices.refuse_moved_ports(config, ports, running)
    wanted = {**ports, **config.ports}
    return {name: port for name, port in wanted.items() if name not in running}


def refuse_wrong_declarations(config: Config, known: State | None) -> None:
    """Raise LabError when the checkout's data sets can't be right, or share the dataset's files."""
    chosen = first_version.repository_path(config.dataset or Path(EMPLOYEES_NAME))
    read_data_sets(config.tree / "dags", known.dataset_path if known else chosen)


def first_state(config: Config, backend: str, database: str, ports: Mapping[str, int]) -> State:
    """Return the choices that a new lab is made with."""
    return State(
        backend=backend,
        database=database,
        dataset_path=first_version.repository_path(config.dataset or Path(EMPLOYEES_NAME)),
        dataset_source=str(config.dataset) if config.dataset else None,
        ports=ports,
    )


def publish_pipelines(site: Site) -> None:
    """Publish the DAGs to the git server, and begin the other repositories."""
    publish_dags(site)
    publish.ensure_first_commit(site.lab, site.repository_url(TEAM_A))


def publish_dags(site: Site) -> str | None:
    """Publish the checkout's DAGs; return their commit, or None where the branch is not ours."""
    return publish.publish_dags(site.lab, site.repository_url(PIPELINES), site.config.tree / "dags")


def wait_for_pipelines(site: Site, timeout: float) -> None:
    """Wait until Airflow has parsed the DAGs that were published; `timeout` is in seconds."""
    if commit := publish_dags(site):
        publish.wait_until_parsed(site.lab, site.config.tree / "dags", commit, timeout)


def is_published(site: Site) -> bool:
    """Return whether the datasets repository has a pointer at the dataset's path."""
    return site.has_file(DATASETS, f"{site.state.dataset_path}.dvc")


def prepare_dataset(site: Site) -> None:
    """Write the first version's dataset to a file, unless it is published."""
    if not is_published(site):
        first_version.prepare_dataset(site.config, site.state)


def publish_dataset(site: Site) -> None:
    """Store the dataset in S3 and commit its first version."""
    if is_published(site):
        return
    if not first_version.source_file(site.config, site.state).exists():
        first_version.prepare_dataset(site.config, site.state)
    first_version.publish_dataset(site.config, site.state, site.import_environment())
