"""The embedded backend: the whole lab as processes of this machine. No Docker, no root."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lab import layout
from lab.backends import choices, doctor
from lab.backends.doctor import Finding
from lab.backends.embedded.doctor import LOOKS
from lab.backends.embedded.services import airflow, gitserver, postgresql, seaweedfs
from lab.client import s3
from lab.config import Config
from lab.dataset import first_version
from lab.dataset.employees import EMPLOYEES_NAME
from lab.delivery import publish, ssh_door
from lab.errors import PortError
from lab.home import ports, processes, state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.model import Service
from lab.progress import Report, silent, title
from lab.wait import together

NAME = "embedded"
START_SECONDS = 120
PORTS = (
    *seaweedfs.port_names(),
    gitserver.NAME,
    ssh_door.NAME,
    airflow.API_SERVER,
    postgresql.NAME,
)


@dataclass(frozen=True)
class Site:
    """One embedded lab: its choices, its secrets, its services."""

    config: Config
    state: State
    secrets: Secrets

    @property
    def ports(self) -> dict[str, int]:
        return dict(self.state.ports)

    @property
    def services(self) -> list[Service]:
        """All of them, in the order in which they start."""
        return [*self.stores, *self.database, *self.airflow]

    @property
    def stores(self) -> list[Service]:
        choice = self.config, self.secrets, self.ports
        return [seaweedfs.service(*choice), gitserver.service(*choice)]

    @property
    def database(self) -> list[Service]:
        """The database server, where the lab has one."""
        if self.state.database == "sqlite":
            return []
        return [postgresql.service(self.config, self.secrets, self.ports)]

    @property
    def airflow(self) -> list[Service]:
        return airflow.services(self.config, self.secrets, self.ports, self.database_url)

    @property
    def database_url(self) -> str:
        if self.database:
            return postgresql.url(self.secrets, self.ports)
        return f"sqlite:///{airflow.database_file(self.config)}"

    @property
    def lab(self) -> Lab:
        """Where the lab's servers are, and how to be let in."""
        return Lab(
            backend=NAME,
            git_url=gitserver.url(self.ports, layout.DATASETS),
            git_user=layout.OWNER,
            git_password=gitserver.password(self.secrets, layout.OWNER),
            git_page=gitserver.page(self.ports, layout.DATASETS),
            s3_endpoint=f"http://127.0.0.1:{self.ports[seaweedfs.NAME]}",
            s3_region=s3.REGION,
            s3_bucket=layout.BUCKET,
            s3_access_key=seaweedfs.access_key(self.secrets, layout.OWNER),
            s3_secret_key=seaweedfs.secret_key(self.secrets, layout.OWNER),
            s3_session_token="",
            dataset_path=self.state.dataset_path,
            airflow_url=f"http://127.0.0.1:{self.ports[airflow.API_SERVER]}",
            airflow_user=layout.OWNER,
            airflow_password=airflow.password(self.secrets),
        )

    @property
    def step_environment(self) -> dict[str, str]:
        """What a step sees, beside what Airflow says of its run: the contract of all backends."""
        return {
            "GIT_URL": self.lab.git_url,
            "GIT_SYNC_USERNAME": layout.STEPS,
            "GIT_SYNC_PASSWORD": gitserver.password(self.secrets, layout.STEPS),
            "DATASET_PATH": self.state.dataset_path,
            **seaweedfs.step_environment(self.secrets, self.ports),
        }


def check(config: Config) -> None:
    """Raises the LabError of the first thing that keeps a lab from running; changes nothing."""
    doctor.refuse_unfit_machine(config, LOOKS)
    known = state.read(config)
    if known:
        choices.refuse_others(config, known)
    refuse_unfit_pins(config)
    refuse_held_ports(config, dict(known.ports) if known else {})


def refuse_unfit_pins(config: Config) -> None:
    """Raises PortError when a pinned port is of no service, or can't be used or not twice."""
    choices.refuse_unknown_pins(config, PORTS)
    numbers = [*config.ports.values(), *seaweedfs.companions(config.ports).values()]
    for number in numbers:
        if number > ports.HIGHEST or numbers.count(number) > 1:
            raise PortError(
                f"port {number} is pinned twice, or does not exist",
                f"choose others; SeaweedFS uses each port of its own + {seaweedfs.GRPC_OFFSET} too",
            )


def refuse_held_ports(config: Config, known: dict[str, int]) -> None:
    """Raises PortError when a port is held, or pinned anew while its service runs on another."""
    running = {name for name in known if processes.find(config, owner(name))}
    choices.refuse_moved(config, known, running)
    wanted = {name: n for name, n in {**known, **config.ports}.items() if name not in running}
    ports.refuse_held(wanted)
    ports.refuse_held(seaweedfs.companions(wanted))


def owner(port: str) -> str:
    """The service that listens on a port of this name."""
    with_more = (seaweedfs.NAME, gitserver.NAME)
    return next((name for name in with_more if port.startswith(name)), port)


def up(config: Config, report: Report = silent) -> Lab:
    """A whole lab runs and answers; what runs already is left alone, what is missing is added."""
    with report("Check this machine and the choices made"):
        check(config)
    with state.exclusive(config):
        site = settle(config)
        with temporary_folder(config):
            for do in (
                start_stores,
                publish_pipelines,
                start_airflow,
                publish_dataset,
                await_airflow,
            ):
                with report(title(do)):
                    do(site)
    return site.lab


def settle(config: Config) -> Site:
    """The lab's choices are on the disk: those of an earlier `up`, or new ones.

    A lab that an earlier version made gets the ports that it lacks.
    """
    known = state.settled(config, first_state)
    if missing := [name for name in port_names(known.database) if name not in known.ports]:
        added = ports.choose(missing, {}, seaweedfs.GRPC_OFFSET, known.ports)
        known = state.with_ports(known, {**known.ports, **added})
        state.write(config, known)
    return Site(config, known, Secrets(config))


def port_names(database: str) -> list[str]:
    """The ports of a lab that keeps Airflow's metadata there."""
    unused = {postgresql.NAME} if database != "postgresql" else set()
    return [name for name in PORTS if name not in unused]


def first_state(config: Config) -> State:
    database = config.database or "sqlite"
    names = port_names(database)
    return State(
        backend=NAME,
        database=database,
        dataset_path=first_version.path_of(config.dataset or Path(EMPLOYEES_NAME)),
        dataset_source=str(config.dataset) if config.dataset else None,
        ports=ports.choose(names, config.ports, seaweedfs.GRPC_OFFSET),
    )


@contextlib.contextmanager
def temporary_folder(config: Config) -> Iterator[None]:
    """This process's temporary files are in the lab, too."""
    folder = airflow.temporary(config)
    folder.mkdir(mode=0o700, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def start_stores(site: Site) -> None:
    """Start S3 and git, prepare the database and the dataset."""
    jobs = (prepare_dataset, start_servers, prepare_database)
    together(*(partial(job, site) for job in jobs))
    s3.ensure_bucket(site.lab)


def start_servers(site: Site) -> None:
    start(site, *site.stores)


def start(site: Site, *services: Service) -> None:
    """The services answer."""
    for service in services:
        processes.ensure(site.config, service)
    for service in services:
        processes.await_ready(site.config, service, START_SECONDS)


def prepare_dataset(site: Site) -> None:
    """The first version's dataset is in a file, unless it is published."""
    if not published(site):
        first_version.prepare(site.config, site.state)


def published(site: Site) -> bool:
    """Whether the datasets repository has a pointer at the dataset's path."""
    pointer = f"main:{site.state.dataset_path}.dvc"
    return gitserver.has_object(site.config, layout.DATASETS, pointer)


def prepare_database(site: Site) -> None:
    """Airflow's tables are there, of the installed version.

    A first migration that was cut off can't be continued; nothing is lost by starting it afresh.
    """
    airflow.prepare(site.config, site.secrets)
    start(site, *site.database)
    if not airflow.migrated(site.config):
        airflow.migrate(site.config, site.airflow[0], lambda: clear_database(site))


def clear_database(site: Site) -> None:
    """The database is there and empty."""
    if site.database:
        postgresql.clear(site.secrets, site.ports)
    else:
        airflow.clear_sqlite(site.config)


def publish_pipelines(site: Site) -> None:
    """Publish the DAGs to the git server, and begin the other repositories."""
    published_commit(site)
    publish.empty(site.lab, gitserver.url(site.ports, layout.TEAM_A))
    if not ssh_door.usable(site.ports):
        print(f"  there is no ssh here: Airflow reads {layout.TEAM_A} by HTTP instead")


def published_commit(site: Site) -> str | None:
    """The commit that holds the checkout's DAGs, or None where the branch is somebody else's."""
    url = gitserver.url(site.ports, layout.PIPELINES)
    return publish.dags(site.lab, url, site.config.tree / "dags")


def start_airflow(site: Site) -> None:
    """Start Airflow's four processes."""
    airflow.write_steps_environment(site.config, site.step_environment)
    for service in site.airflow:
        processes.ensure(site.config, service)


def publish_dataset(site: Site) -> None:
    """Store the dataset in S3 and commit its first version."""
    if published(site):
        return
    first_version.publish(site.config, site.state, airflow.steps_environment(site.config))


def await_airflow(site: Site) -> None:
    """Wait until Airflow is healthy and knows the pipelines."""
    for service in site.airflow:
        processes.await_ready(site.config, service, START_SECONDS)
    airflow.warm_up(site.ports[airflow.API_SERVER])
    if commit := published_commit(site):
        publish.await_parsed(site.lab, site.config.tree / "dags", commit, START_SECONDS)
    gitserver.tell_the_untold(site.config, site.secrets, site.ports)


def find(config: Config) -> Site:
    """The lab that is there, running or not. Raises NotRunningError when there is none."""
    return Site(config, state.known(config), Secrets(config))


def restore(config: Config) -> None:
    """Start again what has ended of a lab that was up, and wait until each service answers."""
    up(replace(config, dataset=None))


def connect(config: Config) -> Lab:
    """The running lab. Raises NotRunningError, naming what does not run."""
    processes.refuse_stopped(list_services(config))
    return find(config).lab


def list_services(config: Config) -> list[tuple[Service, bool]]:
    """Each service, and whether its process runs."""
    site = find(config)
    return [(s, processes.find(config, s.name) is not None) for s in site.services]


def undeclared_ports(config: Config) -> list[int]:
    """Ports on which a process of the lab listens though no service names them."""
    return processes.undeclared(config, find(config).services)


def log_files(config: Config) -> dict[str, Path]:
    """The log file of each service."""
    return {s.name: processes.log_of(config, s.name) for s in find(config).services}


def follow_commands(config: Config, wanted: list[str]) -> list[list[str | Path]]:
    """What prints the logs of these services as they grow."""
    return [["tail", "-n", "20", "-F", *(log_files(config)[name] for name in wanted)]]


def diagnose(config: Config) -> list[Finding]:
    """What this machine has and lacks for an embedded lab."""
    return list(doctor.findings(config, LOOKS))


def collect_evidence(config: Config, folder: Path) -> None:
    """`folder` holds what tells why a lab failed: its logs."""
    shutil.copytree(config.logs, folder, dirs_exist_ok=True)


def remove_leftovers(config: Config) -> None:
    """Nothing of an embedded lab is outside of its home but processes, which `down` ends."""


def down(config: Config, *, purge: bool = False) -> int:
    """No process, port or file outside `.lab/` is left; with `purge` no `.lab/` either.

    The number of processes that were ended. Works on whatever an interrupted command left.
    """
    known = state.readable(config)
    made = (config.home / "lock").exists()
    with state.exclusive(config) if made else contextlib.nullcontext():
        ended = processes.end_all(config)
        if known:
            seaweedfs.remove_sockets(dict(known.ports))
        shutil.rmtree(airflow.temporary(config), ignore_errors=True)
        if purge:
            state.remove(config)
    return ended
