"""Fixtures: the lab's S3 server and git server, AWS as moto emulates it, runs' steps as processes.

stores    both servers, started once for all tests of a session, without Airflow
template  a repository with the first version of the dataset, which the real step has imported
project   a test's own copy of it; `project.run()` returns a run whose steps are processes
empty     a repository without a commit
cloud     AWS for one test, as moto's server emulates it: see tests/support/cloud.py
site      staging in it, of which nothing is created yet
docker_here  a docker that pushes into its registry
pods, cluster  the lab on kind, as a test of that backend alone sees it
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import layout
from lab.backends.embedded import backend as embedded
from lab.backends.embedded import site as embedded_site
from lab.backends.embedded.gitserver import repositories
from lab.backends.embedded.services import gitserver, seaweedfs
from lab.client import s3
from lab.config import Config
from lab.home import processes, secrets, state

if TYPE_CHECKING:  # moto takes a second that most tests here need not spend
    from eks.site import Site
    from lab.cluster.api import Cluster
    from tests.support.cloud import Cloud
    from tests.support.control import Control
    from tests.support.control.pods import Pods
    from tests.support.pushes import Docker

from tests.support.stores import Project, Stores, copy_project, employees, new_project


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Start both servers; their folder's name has blanks, a comma and non-ASCII letters."""
    config = Config(home=tmp_path_factory.mktemp("stores") / "Größe, 実験 1", database="sqlite")
    state.make_home(config)
    site = embedded_site.Site(config, embedded.new_state(config), secrets.Secrets(config))
    try:
        embedded.start_servers(site)
        s3.ensure_bucket(site.lab)
        yield Stores(site)
    finally:
        processes.terminate_all(config)
        seaweedfs.remove_sockets(site.ports)


@pytest.fixture(scope="session")
def template(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the repository that all others are copies of: the real step imported its dataset."""
    project = Project(stores, layout.DATASETS, tmp_path_factory.mktemp("shared"))
    stores.grant(project.name)
    source = project.shared / "employees.csv"
    source.write_bytes(employees(300))
    done = project.run().run_step("import", source)
    assert done.code == 0, done.output
    return project


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """Return a repository that holds the import's commit only."""
    return copy_project(template, tmp_path)


@pytest.fixture
def empty(stores: Stores, tmp_path: Path) -> Project:
    """Return a repository without a commit."""
    project = new_project(stores, tmp_path)
    repositories.create_repository(stores.config.data / gitserver.NAME, project.name)
    return project


@pytest.fixture
def pods(control: Control) -> Pods:
    """Return what a test may do to a lab on kind beyond what every lab lets it do."""
    from tests.support.control.pods import Pods

    assert isinstance(control, Pods)
    return control


@pytest.fixture
def cluster(pods: Pods) -> Cluster:
    return pods.cluster


@pytest.fixture(scope="session")
def aws_server() -> Iterator[str]:
    """Start moto's server and yield its address."""
    from tests.support import cloud

    with cloud.running_moto() as url:
        yield url


@pytest.fixture
def cloud(
    aws_server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Cloud:
    """Return an empty AWS, which answers every call that the test makes to AWS."""
    from tests.support import cloud

    folder = tmp_path_factory.mktemp("cloud")
    cloud.sign_in(monkeypatch, aws_server, folder)
    every = pytestconfig.getoption("--every")
    return cloud.Cloud(folder / "sites", monkeypatch, every=every).empty()


@pytest.fixture
def site(cloud: Cloud) -> Site:
    """Return staging in this AWS, of which nothing is created yet."""
    return cloud.site()


@pytest.fixture
def docker_here(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Docker:
    """Return the docker of a machine with an attestation of all images, which pushes into moto."""
    from tests.support import pushes

    return pushes.use_docker(cloud, monkeypatch, tmp_path / "attestation.json")
