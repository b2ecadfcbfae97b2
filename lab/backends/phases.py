"""What is done alike on every backend: the frame of `up`, and the phases about DAGs and data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from typing import Protocol, TypeVar

from lab.backends import choices, doctor
from lab.backends.doctor import Checks
from lab.changes import check_kit_version
from lab.config import DISTRIBUTION, Config
from lab.dataset import first_version
from lab.dataset.first_version import First
from lab.delivery import bundle, publish
from lab.home import processes, state
from lab.home.state import State
from lab.lab import Lab
from lab.layout import DATASETS, PIPELINES, TEAM_A
from lab.origin.deliver import deliver_origin
from lab.progress import Report, phase_title


class Site(Protocol):
    """One lab of a backend: its choices, where its servers are, and what its steps see."""

    @property
    def config(self) -> Config: ...

    @property
    def state(self) -> State: ...

    @property
    def lab(self) -> Lab: ...

    @property
    def commits(self) -> dict[str, str | None]:
        """What this command has published, by the repository; None where that is not the lab's."""

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
    """Check, settle the lab's choices, and run the phases in their order; return the lab."""
    with report("Check this machine and the choices made"):
        check(config)
    return run_phases(config, report, hold, settle, phases)


def run_phases(
    config: Config,
    report: Report,
    hold: Callable[[Config], AbstractContextManager[None]],
    settle: Callable[[Config], S],
    phases: Sequence[Callable[[S], None]],
) -> Lab:
    """Run the phases in their order on what `settle` returns; return its lab.

    No other command changes the lab meanwhile, and `hold` is entered around all that changes it.
    """
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
    """Raise LabError when what the project declares can't be right, or can't be delivered."""
    project = config.project
    check_kit_version(project, version(DISTRIBUTION))
    first_version.refuse_unfit(project)
    project.name_other_paths(known.dataset_path if known else first_version.choose_path(config))
    bundle.refuse_taken_names(config)


def first_state(config: Config, backend: str, database: str, ports: Mapping[str, int]) -> State:
    """Return the choices that a new lab is made with."""
    return State(
        backend=backend,
        database=database,
        dataset_path=first_version.choose_path(config),
        dataset_source=str(config.dataset) if config.dataset else None,
        ports=ports,
    )


def publish_pipelines(site: Site) -> None:
    """Publish the DAGs to the git server, and begin the other repositories."""
    site.commits[PIPELINES] = publish_dags(site)
    publish.ensure_first_commit(site.lab, site.repository_url(TEAM_A))


def publish_dags(site: Site) -> str | None:
    """Publish the project's DAGs; return their commit, or None where the branch is not ours."""
    write = partial(bundle.write_bundle, site.config)
    return publish.publish_dags(site.lab, site.repository_url(PIPELINES), write)


def wait_for_own_dag(site: Site, timeout: float) -> None:
    """Wait until Airflow has parsed the project's own DAG as published; `timeout` is in seconds."""
    if commit := site.commits[PIPELINES]:
        site.lab.wait_for_dag(site.config.project.dag, commit, timeout)


def wait_for_all_dags(site: Site) -> None:
    """Wait until Airflow knows the other DAGs, too."""
    if commit := publish_dags(site):
        publish.wait_until_parsed(site.lab, bundle.find_dag_files(site.config), commit)


def list_unpublished(site: Site) -> list[First]:
    """List the first versions whose data set has no pointer in the datasets repository."""
    listed = first_version.list_first_versions(site.config, site.state)
    return [first for first in listed if not site.has_file(DATASETS, f"{first.path}.dvc")]


def prepare_datasets(site: Site) -> None:
    """Write the generated table to a file, if it is the first version of what is not published."""
    for first in list_unpublished(site):
        first_version.prepare_data(first)


def publish_datasets(site: Site) -> None:
    """Store the data sets in S3 and commit their first versions."""
    if site.config.project.origin:
        deliver_origin(site.lab, site.config.root)
    environment = site.import_environment()
    for first in list_unpublished(site):
        first_version.publish_data(site.config, first, environment)
    if needs_configuration(site):
        first_version.begin_repository(site.config, environment)


def needs_configuration(site: Site) -> bool:
    """Return whether nothing has made the datasets repository a DVC one.

    It is asked for only where no first version does that: Gitea 1.26 fails (500) when it is asked
    for a file of a branch that was pushed a moment ago.
    """
    does_so = site.config.project.origin or first_version.list_first_versions(
        site.config, site.state
    )
    return not does_so and not site.has_file(DATASETS, ".dvc/config")
