"""The embedded backend: the whole lab as processes of this machine. No Docker, no root."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab import layout
from lab.backends import doctor, phases
from lab.backends.doctor import Finding
from lab.backends.embedded import own_images
from lab.backends.embedded import site as places
from lab.backends.embedded.doctor import CHECKS
from lab.backends.embedded.services import airflow, gitserver, postgresql, seaweedfs
from lab.backends.embedded.site import Site, find_site
from lab.backends.phases import (
    bring_up,
    check_choices,
    first_state,
    prepare_datasets,
    publish_datasets,
    run_phases,
    wait_for_all_dags,
    wait_for_own_dag,
)
from lab.client import s3
from lab.config import Config
from lab.delivery import ssh_door
from lab.errors import PortError
from lab.home import ports, processes, state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.model import Service
from lab.progress import Report, silent_phase
from lab.wait import run_in_parallel

NAME = places.NAME
START_SECONDS = 120
PORTS = (
    *seaweedfs.port_names(),
    gitserver.NAME,
    ssh_door.NAME,
    airflow.API_SERVER,
    postgresql.NAME,
)


def check(config: Config) -> None:
    """Raise the LabError of the first thing that keeps a lab from running; change nothing."""
    wanted = check_choices(config, CHECKS, PORTS, port_owner)
    refuse_unfit_pins(config)
    ports.refuse_held(wanted)
    ports.refuse_held(seaweedfs.companion_ports(wanted))


def refuse_unfit_pins(config: Config) -> None:
    """Raise PortError when a pinned port does not exist, or two services would share it."""
    numbers = [*config.ports.values(), *seaweedfs.companion_ports(config.ports).values()]
    for number in numbers:
        if number > ports.HIGHEST or numbers.count(number) > 1:
            raise PortError(
                f"port {number} is pinned twice, or does not exist",
                f"choose others; SeaweedFS uses each port of its own + {seaweedfs.GRPC_OFFSET} too",
            )


def port_owner(port: str) -> str:
    """Return the service that listens on a port of this name."""
    with_more = (seaweedfs.NAME, gitserver.NAME)
    return next((name for name in with_more if port.startswith(name)), port)


def up(config: Config, report: Report = silent_phase) -> Lab:
    """Bring a whole lab up; leave alone what runs already, and add what is missing."""
    lab = start(config, report)
    complete(config, report)
    return lab


def start(config: Config, report: Report = silent_phase) -> Lab:
    """Bring up all that the project's own DAG needs."""
    steps = (start_stores, publish_pipelines, start_airflow, publish_datasets, wait_for_airflow)
    return bring_up(config, report, check, temporary_folder, settle, steps)


def complete(config: Config, report: Report = silent_phase) -> None:
    """Wait for what else a lab has: the DAGs that are not the project's own."""
    run_phases(config, report, temporary_folder, find_site, [wait_for_all_dags])


def settle(config: Config) -> Site:
    """Load the choices of an earlier `up`, or write new ones.

    A lab that an earlier version made gets the ports that it lacks.
    """
    known = state.ensure_state(config, new_state)
    if missing := [name for name in port_names(known.database) if name not in known.ports]:
        added = ports.choose_ports(missing, {}, seaweedfs.GRPC_OFFSET, known.ports)
        known = state.with_ports(known, {**known.ports, **added})
        state.write_state(config, known)
    return Site(config, known, Secrets(config))


def port_names(database: str) -> list[str]:
    """Return the names of a lab's ports, by where it keeps Airflow's metadata."""
    unused = {postgresql.NAME} if database != "postgresql" else set()
    return [name for name in PORTS if name not in unused]


def new_state(config: Config) -> State:
    """Return the choices that a new lab is made with."""
    database = config.database or "sqlite"
    free = ports.choose_ports(port_names(database), config.ports, seaweedfs.GRPC_OFFSET)
    return first_state(config, NAME, database, free)


@contextlib.contextmanager
def temporary_folder(config: Config) -> Iterator[None]:
    """Keep this process's temporary files in the lab, too."""
    folder = airflow.temporary_folder(config)
    folder.mkdir(mode=0o700, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def start_stores(site: Site) -> None:
    """Start S3 and git, prepare the database and the dataset.

    The environments of the project's own images are made meanwhile. An Airflow of an older kit is
    ended before its tables are migrated and newer DAGs are published. An Airflow whose tables are
    there needs seconds until it looks for DAGs: it starts at once.
    """
    processes.end_outdated(site.config, *site.services)
    jobs = [prepare_datasets, start_servers, prepare_database, prepare_images]
    if airflow.is_migrated(site.config) and not site.database:
        jobs.append(start_airflow)
    run_in_parallel(*(partial(job, site) for job in jobs))
    s3.ensure_bucket(site.lab)


def start_servers(site: Site) -> None:
    """Start the S3 server and the git server, and wait until they answer."""
    start_services(site, *site.stores)


def start_services(site: Site, *services: Service) -> None:
    """Start the services that do not run, and wait until each answers."""
    for service in services:
        processes.ensure_running(site.config, service)
    for service in services:
        processes.wait_until_ready(site.config, service, START_SECONDS)


def prepare_images(site: Site) -> None:
    """Make the environments of the project's own images."""
    own_images.prepare(site.config)


def prepare_database(site: Site) -> None:
    """Create or migrate Airflow's tables.

    A first migration that was cut off can't be continued; nothing is lost by starting it afresh.
    """
    airflow.prepare(site.config, site.secrets)
    start_services(site, *site.database)
    if not airflow.is_migrated(site.config):
        airflow.migrate_database(site.config, site.airflow[0], lambda: clear_database(site))


def clear_database(site: Site) -> None:
    """Empty the database."""
    if site.database:
        postgresql.clear_database(site.secrets, site.ports)
    else:
        airflow.clear_sqlite(site.config)


def publish_pipelines(site: Site) -> None:
    """Publish the DAGs to the git server, and begin the other repositories."""
    phases.publish_pipelines(site)
    if not ssh_door.is_usable(site.ports):
        print(f"  there is no ssh here: Airflow reads {layout.TEAM_A} by HTTP instead")


def start_airflow(site: Site) -> None:
    """Start Airflow's four processes."""
    airflow.write_steps_environment(site.config, site.step_environment)
    for service in site.airflow:
        processes.ensure_running(site.config, service)


def wait_for_airflow(site: Site) -> None:
    """Wait until Airflow is healthy and knows the project's DAG."""
    for service in site.airflow:
        processes.wait_until_ready(site.config, service, START_SECONDS)
    airflow.warm_up_api(site.ports[airflow.API_SERVER])
    wait_for_own_dag(site, START_SECONDS)
    gitserver.deliver_pending_pushes(site.config, site.secrets, site.ports)


def restore(config: Config) -> None:
    """Start again what has ended of a lab that was up, and wait until each service answers."""
    up(replace(config, dataset=None))


def connect(config: Config) -> Lab:
    """Return the running lab. Raise NotRunningError, naming what does not run."""
    processes.refuse_stopped(list_services(config))
    return find_site(config).lab


def list_services(config: Config) -> list[tuple[Service, bool]]:
    """Return each service, and whether its process runs."""
    site = find_site(config)
    return [(s, processes.find_process(config, s.name) is not None) for s in site.services]


def undeclared_ports(config: Config) -> list[int]:
    """Return the ports on which a process of the lab listens though no service names them."""
    return processes.list_undeclared_ports(config, find_site(config).services)


def log_files(config: Config) -> dict[str, Path]:
    """Return the log file of each service."""
    return {s.name: processes.log_path(config, s.name) for s in find_site(config).services}


def follow_commands(config: Config, wanted: list[str]) -> list[list[str | Path]]:
    """Return the command that prints the logs of these services as they grow."""
    return [["tail", "-n", "20", "-F", *(log_files(config)[name] for name in wanted)]]


def diagnose(config: Config) -> list[Finding]:
    """Return what this machine has and lacks for an embedded lab."""
    return list(doctor.run_checks(config, CHECKS))


def examine(_config: Config) -> list[Finding]:
    """Return nothing: all tasks are processes of one user, and have one key of the lab's own."""
    return []


def collect_evidence(config: Config, folder: Path) -> None:
    """Copy the lab's logs into `folder`."""
    shutil.copytree(config.logs, folder, dirs_exist_ok=True)


def remove_leftovers(config: Config) -> None:
    """Do nothing: outside of its home an embedded lab has only processes, which `down` ends."""


def down(config: Config, *, purge: bool = False) -> int:
    """End every process of the lab, with `purge` delete its home; return how many processes ended.

    Works on whatever an interrupted command left.
    """
    known = state.try_read_state(config)
    with state.lock_if_made(config):
        ended = processes.terminate_all(config)
        if known:
            seaweedfs.remove_sockets(dict(known.ports))
        shutil.rmtree(airflow.temporary_folder(config), ignore_errors=True)
        if purge:
            state.remove_home(config)
    return ended
