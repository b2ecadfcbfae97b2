"""The services of a lab on kind: each workload, and how this machine reaches it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import requests
import urllib3

from lab.backends.kind import node
from lab.backends.kind.site import Site
from lab.cluster import workloads
from lab.cluster.workloads import Workload
from lab.errors import LabError
from lab.home import processes
from lab.model import Service
from lab.wait import NotYet, wait_until

START_SECONDS = 240
NO_ANSWER = (requests.RequestException, urllib3.exceptions.HTTPError)
# What git says when no connection was made, or one ended early.
NO_ANSWER_TO_GIT = re.compile(
    "Failed to connect|Connection refused|Connection reset|Empty reply|Recv failure|hung up"
)


def list_services(site: Site) -> list[tuple[Service, bool]]:
    """Return each service, and whether it serves and this machine reaches it."""
    config = site.config
    alive = node.read_state(config) == "running" and node.kubeconfig_path(config).exists()
    return [(service_of(site, w), alive and is_running(site, w)) for w in workloads.WORKLOADS]


def service_of(site: Site, workload: Workload) -> Service:
    """Return a workload as a service; one that no door leads to has no process here."""
    if workload.door:
        return site.forward(workload)
    return Service(workload.name, (), site.config.run, {}, lambda: None)


def is_running(site: Site, workload: Workload) -> bool:
    """Return whether a pod serves, and the process that brings its port here runs."""
    with contextlib.suppress(LabError):
        here = not workload.door or processes.find_process(site.config, workload.name) is not None
        return here and workloads.is_serving(site.cluster, workload)
    return False


def wait_for_workload(site: Site, workload: Workload) -> None:
    """Wait until a pod of the workload is ready and, where it has a door, until it answers here."""
    workloads.wait_until_ready(site.cluster, workload, START_SECONDS)
    if workload.door:
        service = site.forward(workload)
        processes.ensure_running(site.config, service)
        processes.wait_until_ready(site.config, service, START_SECONDS)


def call_through_door(site: Site, workload: Workload, job: Callable[[], object]) -> None:
    """Wait until the workload answers here and call `job`; do both again when nothing answers it.

    A forward is started anew when its kubectl or the pod has ended, which a busy machine makes
    likely. `job` must complete what a call that was killed has left.
    """

    def attempt() -> None:
        wait_for_workload(site, workload)
        try:
            job()
        except LabError as error:
            if has_no_answer(error):
                raise NotYet(error.what) from error
            raise

    wait_until(attempt, what=workload.name, timeout=START_SECONDS, interval=1)


def has_no_answer(error: LabError) -> bool:
    """Return whether a client's error means that nothing answered, and not that it was refused."""
    return isinstance(error.__cause__, NO_ANSWER) or bool(NO_ANSWER_TO_GIT.search(error.output))
