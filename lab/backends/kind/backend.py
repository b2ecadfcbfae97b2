"""The kind backend: a whole lab on real Kubernetes, in one container of this machine."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from pathlib import Path

from lab.backends import doctor
from lab.backends.doctor import Finding
from lab.backends.kind import evidence, identity, node, services, stores
from lab.backends.kind import site as places
from lab.backends.kind.doctor import CHECKS
from lab.backends.kind.services import START_SECONDS, call_through_door, wait_for_workload
from lab.backends.kind.site import Site, find_site
from lab.backends.phases import (
    bring_up,
    check_choices,
    first_state,
    publish_datasets,
    publish_pipelines,
    run_phases,
    wait_for_all_dags,
    wait_for_own_dag,
)
from lab.client import runs
from lab.cluster import chart, images, manifests, workloads
from lab.config import Config
from lab.dataset import first_version
from lab.errors import LabError
from lab.home import ports, processes, state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.model import Service
from lab.progress import Report, silent_phase
from lab.wait import NotYet, run_in_parallel, wait_until

NAME = places.NAME
VALUES = tuple(Path("manifests", "airflow", name) for name in ("values.yaml", "values-kind.yaml"))
PORTS = tuple(workload.name for workload in workloads.DOORS)


def check(config: Config) -> None:
    """Raise the LabError of the first thing that keeps a lab from running; change nothing."""
    if config.database == "sqlite":
        raise LabError(
            "a lab on kind keeps Airflow's metadata in PostgreSQL", "leave --database out"
        )
    ports.refuse_held(check_choices(config, CHECKS, PORTS))


def diagnose(config: Config) -> list[Finding]:
    """Return what this machine has and lacks for a lab on kind."""
    return list(doctor.run_checks(config, CHECKS))


def examine(config: Config) -> list[Finding]:
    """Return whether a pod could read a static key, and what each service account may do in S3."""
    return identity.examine(find_site(config))


# --- Bringing a lab up --------------------------------------------------------------------------


def up(config: Config, report: Report = silent_phase) -> Lab:
    """Bring a whole lab up; leave alone what runs already, and add what is missing."""
    lab = start(config, report)
    complete(config, report)
    return lab


def start(config: Config, report: Report = silent_phase) -> Lab:
    """Bring up all that the project's own DAG needs."""
    steps = (create_cluster, start_stores, install_airflow, wait_for_airflow)
    return bring_up(config, report, check, processes.exclusive_command, settle, steps)


def complete(config: Config, report: Report = silent_phase) -> None:
    """Bring what else a lab has: what the project's own DAG does not need."""
    run_phases(config, report, processes.exclusive_command, find_site, [bring_rest])


def settle(config: Config) -> Site:
    """Load the choices of an earlier `up`, or write new ones."""
    return Site(config, state.ensure_state(config, new_state), Secrets(config))


def new_state(config: Config) -> State:
    """Return the choices that a new lab is made with."""
    return first_state(config, NAME, "postgresql", ports.choose_ports(PORTS, config.ports, 0))


def create_cluster(site: Site) -> None:
    """Create the cluster; bring its images and load them."""
    node.delete_incomplete(site.config)
    known = images.read_lock(site.config)
    images.ensure_image(known, known["node"])
    site.loading.start()
    jobs = [partial(node.ensure_running, site.config, known["node"])]
    is_new = node.read_state(site.config) is None
    if is_new:  # its dataset will be needed
        firsts = first_version.list_first_versions(site.config, site.state)
        jobs += [partial(first_version.prepare_data, first) for first in firsts]
    run_in_parallel(*jobs)
    wait_for_api(site)
    if is_new:
        stores.claim_volumes(site)


def wait_for_api(site: Site) -> None:
    """Wait until the API server answers and the node is Ready."""
    what = "the Kubernetes API"
    wait_until(partial(check_node, site), what=what, timeout=START_SECONDS, interval=0.5)


def check_node(site: Site) -> None:
    """Raise NotYet until the API server answers and the node is Ready."""
    try:
        shown = site.cluster.kubectl("get", "nodes", "--output", "json", timeout=10)
    except LabError as error:
        raise NotYet(error.what) from error
    for found in json.loads(shown)["items"]:
        if not any(
            c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"]
        ):
            raise NotYet("the node is not ready")


def start_stores(site: Site) -> None:
    """Start S3, git and the database."""
    site.loading.wait_for(images.STORES)
    stores.prepare_stores(site)


def install_airflow(site: Site) -> None:
    """Install Airflow by its chart; publish the DAGs and the data."""
    publishing = partial(call_through_door, site, workloads.GITEA, partial(publish, site))
    run_in_parallel(publishing, partial(install_chart, site))


def publish(site: Site) -> None:
    """Publish the DAGs, begin the other repositories, and store the data sets."""
    publish_pipelines(site)
    publish_datasets(site)


def install_chart(site: Site) -> None:
    """Install the release of Airflow, or upgrade it, with the kit's values."""
    site.loading.wait_for(["airflow"])
    chart.install(site.config, site.cluster, values_files(site))


def values_files(site: Site) -> list[Path]:
    """Write the values of this machine's images; return all files of values, the strongest last."""
    kit, file = site.config.kit, site.config.run / "values-images.yaml"
    own = manifests.write_values(kit, site.images, file)
    return [*(kit / name for name in VALUES), own]


def wait_for_airflow(site: Site) -> None:
    """Wait until Airflow is healthy and knows the project's DAG."""
    site.loading.wait_for_all()
    run_in_parallel(*(partial(wait_for_workload, site, w) for w in workloads.AIRFLOW_COMPONENTS))
    wait_for_own_dag(site, START_SECONDS)


def bring_rest(site: Site) -> None:
    """Load the other images; wait for the other DAGs."""
    site.loading_later.start()
    wait_for_all_dags(site)
    site.loading_later.wait_for_all()


# --- A lab that is there ------------------------------------------------------------------------


def restore(config: Config) -> None:
    """Start the node and this machine's forwards again; wait until every service answers."""
    site = find_site(config)
    node.ensure_running(config, site.images["node"])
    wait_for_api(site)
    run_in_parallel(*(partial(wait_for_workload, site, w) for w in workloads.WORKLOADS))
    wait_until(
        partial(check_login, site), what="Airflow's login", timeout=START_SECONDS, interval=1
    )


def check_login(site: Site) -> None:
    """Raise NotYet while Airflow refuses a login: its database may have been restarted."""
    try:
        runs.fetch_token(site.lab)
    except LabError as error:
        raise NotYet(error.what) from error


def connect(config: Config) -> Lab:
    """Return the running lab. Raise NotRunningError, naming what does not run."""
    processes.refuse_stopped(list_services(config))
    return find_site(config).lab


def list_services(config: Config) -> list[tuple[Service, bool]]:
    """Return each service, and whether it runs and is reached."""
    return services.list_services(find_site(config))


def undeclared_ports(config: Config) -> list[int]:
    """Return the ports on which a process of the lab listens though no service names them."""
    return processes.list_undeclared_ports(config, find_site(config).forwards)


def log_files(config: Config) -> dict[str, Path]:
    """Write what each service's pods have logged to a file; return the files by service."""
    return evidence.write_logs(config, find_site(config).cluster)


def follow_commands(config: Config, wanted: list[str]) -> list[list[str | Path]]:
    """Return the commands that print the logs of these services as they grow."""
    return evidence.follow_commands(find_site(config).cluster, wanted)


def collect_evidence(config: Config, folder: Path) -> None:
    """Write pods, events, logs, manifests and values into `folder`: why a lab failed."""
    site = find_site(config)
    evidence.collect(config, site.cluster, folder, values_files(site))


# --- Ending one ---------------------------------------------------------------------------------


def remove_leftovers(config: Config) -> None:
    """Delete the cluster of a home that has no state; without Docker, leave it as it is."""
    with contextlib.suppress(LabError):
        if node.read_state(config):
            node.delete(config)


def down(config: Config, *, purge: bool = False) -> int:
    """End every process and the node; with `purge` delete the cluster and the home.

    Return how many processes and nodes ended. Works on whatever an interrupted command left.
    """
    with state.lock_if_made(config):
        ended = processes.terminate_all(config)
        if purge:
            ended += node.read_state(config) is not None
            node.delete(config)
            state.remove_home(config)
        else:
            ended += node.stop(config)
    return ended
