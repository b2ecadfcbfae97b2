"""The embedded backend: the whole lab as processes of this machine. No Docker, no root."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lab import dataset, doctor, ports, processes, publish, runs, s3, state
from lab.config import Config
from lab.errors import LabError, NotRunningError
from lab.model import Lab, Service
from lab.progress import Report, silent, title
from lab.services import airflow, gitserver, postgresql, seaweedfs
from lab.shell import run
from lab.state import Secrets, State

NAME = "embedded"
START_SECONDS = 120
IMPORT_SECONDS = 1800  # of a first version; 1 GB takes less than a minute
FIRST_DAG = "dataset_pipeline"
DATASETS = "datasets"  # the folder in the repository, as in the guide this lab comes from


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
            git_url=gitserver.url(self.ports, gitserver.DATASETS),
            git_user=gitserver.OWNER,
            git_password=gitserver.password(self.secrets, gitserver.OWNER),
            s3_endpoint=f"http://127.0.0.1:{self.ports[seaweedfs.NAME]}",
            s3_bucket=seaweedfs.BUCKET,
            s3_access_key=seaweedfs.access_key(self.secrets, seaweedfs.ADMIN),
            s3_secret_key=seaweedfs.secret_key(self.secrets, seaweedfs.ADMIN),
            dataset_path=self.state.dataset_path,
            airflow_url=f"http://127.0.0.1:{self.ports[airflow.API_SERVER]}",
            airflow_user=airflow.USER,
            airflow_password=airflow.password(self.secrets),
            control=Crash(self.config),
        )

    @property
    def step_environment(self) -> dict[str, str]:
        """What a step sees, beside what Airflow says of its run: the contract of all backends."""
        return {
            "GIT_URL": self.lab.git_url,
            "GIT_SYNC_USERNAME": gitserver.STEPS,
            "GIT_SYNC_PASSWORD": gitserver.password(self.secrets, gitserver.STEPS),
            "DATASET_PATH": self.state.dataset_path,
            **seaweedfs.step_environment(self.secrets, self.ports),
        }


@dataclass(frozen=True)
class Crash:
    """Kills services and brings them back: what tests of faults do to a lab."""

    config: Config

    def services(self) -> list[str]:
        """The names of the services that can be killed."""
        return [service.name for service in find(self.config).services]

    def kill(self, service: str) -> None:
        """The service's process, and all that it started, are killed without a warning."""
        processes.send(processes.strays(self.config, service), signal.SIGKILL)

    def restore(self) -> None:
        """Every service answers again."""
        up(replace(self.config, dataset=None))


def check(config: Config) -> None:
    """Raises the LabError of the first thing that keeps a lab from running; changes nothing."""
    doctor.refuse_unfit_machine(config)
    known = state.read(config)
    if known:
        refuse_other_choices(config, known)
    wanted = dict(known.ports) if known else {}
    running = {name for name in wanted if processes.find(config, owner(name))}
    held = {**wanted, **config.ports}
    ports.refuse_held({name: n for name, n in held.items() if name not in running})


def owner(port: str) -> str:
    """The service that listens on a port of this name."""
    return seaweedfs.NAME if port.startswith(seaweedfs.NAME) else port


def refuse_other_choices(config: Config, known: State) -> None:
    """Raises LabError when another database or dataset is asked for than this lab was made with."""
    asked = {
        "--database": (config.database, known.database),
        "--dataset": (config.dataset and path_of(config.dataset), known.dataset_path),
    }
    for option, (new, old) in asked.items():
        if new not in (None, old):
            raise LabError(
                f"this lab was made with {option} {old}, not {new}",
                "leave the option out, or set another LAB_HOME for a second lab",
            )


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
    """The lab's choices are on the disk: those of an earlier `up`, or new ones."""
    known = state.read(config) or first_state(config)
    known = state.with_ports(known, {**known.ports, **config.ports})
    state.write(config, known)
    return Site(config, known, Secrets(config))


def first_state(config: Config) -> State:
    names = (*seaweedfs.port_names(), gitserver.NAME, airflow.API_SERVER, postgresql.NAME)
    return State(
        backend=NAME,
        database=config.database or "sqlite",
        dataset_path=path_of(config.dataset or Path(dataset.EMPLOYEES_NAME)),
        dataset_source=str(config.dataset) if config.dataset else None,
        ports=ports.choose(names, config.ports, seaweedfs.GRPC_OFFSET),
    )


def path_of(source: Path) -> str:
    """Where a CSV is kept in the repository."""
    return f"{DATASETS}/{source.name}"


@contextmanager
def temporary_folder(config: Config) -> Iterator[None]:
    """This process's temporary files are in the lab, too."""
    folder = airflow.temporary(config)
    folder.mkdir(mode=0o700, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def together(site: Site, *jobs: Callable[[Site], object]) -> None:
    """All jobs are done; they ran side by side. Raises what the first failed one raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job, site) for job in jobs]:
            future.result()


def start_stores(site: Site) -> None:
    """Start the S3 server and the git server, prepare database and dataset."""
    together(site, prepare_dataset, start_servers, prepare_database)
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
    """The generated dataset is in a file, unless it is published or a person brought one."""
    if not site.state.dataset_source and not published(site):
        generated(site).parent.mkdir(mode=0o700, exist_ok=True)
        dataset.write_employees(generated(site))


def generated(site: Site) -> Path:
    return site.config.data / "dataset" / dataset.EMPLOYEES_NAME


def published(site: Site) -> bool:
    """Whether the datasets repository has a pointer at the dataset's path."""
    pointer = f"main:{site.state.dataset_path}.dvc"
    return gitserver.has_object(site.config, gitserver.DATASETS, pointer)


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
    """Publish the DAGs to the git server."""
    published_commit(site)


def published_commit(site: Site) -> str | None:
    """The commit that holds the checkout's DAGs, or None where the branch is somebody else's."""
    url = gitserver.url(site.ports, gitserver.PIPELINES)
    return publish.dags(site.lab, url, site.config.tree / "dags", airflow.DAGS_FOLDER)


def start_airflow(site: Site) -> None:
    """Start Airflow's four processes."""
    airflow.write_steps_environment(site.config, site.step_environment)
    for service in site.airflow:
        processes.ensure(site.config, service)


def publish_dataset(site: Site) -> None:
    """Store the dataset in S3 and commit its first version."""
    if published(site):
        return
    source = Path(site.state.dataset_source) if site.state.dataset_source else generated(site)
    dataset.inspect(source)
    run(
        [sys.executable, "-m", "dataset_steps", "import", source.absolute()],
        timeout=IMPORT_SECONDS,
        fix="lab logs seaweedfs, lab logs gitserver; then lab up again",
        env=airflow.step_variables(site.config, dag_id="lab", run_id="import"),
    )
    shutil.rmtree(generated(site).parent, ignore_errors=True)


def await_airflow(site: Site) -> None:
    """Wait until Airflow is healthy and knows the pipeline."""
    for service in site.airflow:
        processes.await_ready(site.config, service, START_SECONDS)
    airflow.warm_up(site.ports[airflow.API_SERVER])
    if commit := published_commit(site):
        runs.await_dag(site.lab, FIRST_DAG, commit, START_SECONDS)


def find(config: Config) -> Site:
    """The lab that is there, running or not. Raises NotRunningError when there is none."""
    known = state.read(config)
    if known is None:
        raise NotRunningError(f"there is no lab in {config.home}", "lab up makes one")
    return Site(config, known, Secrets(config))


def connect(config: Config) -> Lab:
    """The running lab. Raises NotRunningError, naming what does not run."""
    site = find(config)
    dead = [s.name for s in site.services if not processes.find(config, s.name)]
    if dead:
        raise NotRunningError(f"the lab does not run: no {', '.join(dead)}", "lab up starts it")
    return site.lab


def services(config: Config) -> list[tuple[Service, bool]]:
    """Each service, and whether its process runs."""
    site = find(config)
    return [(s, processes.find(config, s.name) is not None) for s in site.services]


def logs(config: Config) -> dict[str, Path]:
    """The log file of each service."""
    return {s.name: processes.log_of(config, s.name) for s in find(config).services}


def down(config: Config, *, purge: bool = False) -> int:
    """No process, port or file outside `.lab/` is left; with `purge` no `.lab/` either.

    The number of processes that were ended. Works on whatever an interrupted command left.
    """
    if not config.home.exists():
        return processes.end_all(config)
    with state.exclusive(config):
        ended = processes.end_all(config)
        known = state.read(config)
        if known:
            seaweedfs.remove_sockets(dict(known.ports))
        shutil.rmtree(airflow.temporary(config), ignore_errors=True)
        if purge:
            shutil.rmtree(config.home)
    return ended
