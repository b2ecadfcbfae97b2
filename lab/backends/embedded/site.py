"""One embedded lab: its choices, its secrets, its services, and where they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab import layout
from lab.backends.embedded.services import airflow, gitserver, postgresql, seaweedfs
from lab.client import s3
from lab.config import Config
from lab.home import state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.model import Service

NAME = "embedded"


@dataclass(frozen=True)
class Site:
    """One embedded lab: its choices, its secrets, its services."""

    config: Config
    state: State
    secrets: Secrets
    commits: dict[str, str | None] = field(default_factory=dict)

    @property
    def ports(self) -> dict[str, int]:
        return dict(self.state.ports)

    @property
    def services(self) -> list[Service]:
        """All services, in the order in which they start."""
        return [*self.stores, *self.database, *self.airflow]

    @property
    def stores(self) -> list[Service]:
        choice = self.config, self.secrets, self.ports
        return [seaweedfs.build_service(*choice), gitserver.build_service(*choice)]

    @property
    def database(self) -> list[Service]:
        """The database server, where the lab has one."""
        if self.state.database == "sqlite":
            return []
        return [postgresql.build_service(self.config, self.secrets, self.ports)]

    @property
    def airflow(self) -> list[Service]:
        return airflow.build_services(self.config, self.secrets, self.ports, self.database_url)

    @property
    def database_url(self) -> str:
        if self.database:
            return postgresql.database_url(self.secrets, self.ports)
        return f"sqlite:///{airflow.database_file(self.config)}"

    def repository_url(self, repository: str) -> str:
        """Return where this machine reaches a repository of the lab's git server."""
        return gitserver.repository_url(self.ports, repository)

    def has_file(self, repository: str, path: str) -> bool:
        """Return whether the main branch of a repository has a file at `path`."""
        return gitserver.has_object(self.config, repository, f"main:{path}")

    def import_environment(self) -> dict[str, str]:
        """Return all that the import of the first version sees: what every step sees."""
        return airflow.read_steps_environment(self.config)

    @property
    def lab(self) -> Lab:
        """The lab's addresses and credentials."""
        return Lab(
            backend=NAME,
            git_url=gitserver.repository_url(self.ports, layout.DATASETS),
            git_user=layout.OWNER,
            git_password=gitserver.password(self.secrets, layout.OWNER),
            git_page=gitserver.page_url(self.ports, layout.DATASETS),
            s3_endpoint=f"http://127.0.0.1:{self.ports[seaweedfs.NAME]}",
            s3_region=s3.REGION,
            s3_bucket=layout.BUCKET,
            s3_access_key=seaweedfs.access_key(self.secrets, layout.OWNER),
            s3_secret_key=seaweedfs.secret_key(self.secrets, layout.OWNER),
            s3_session_token="",
            dataset_path=self.state.dataset_path,
            dataset_name=self.config.project.main,
            data_sets=self.config.project.name_other_paths(self.state.dataset_path),
            airflow_url=f"http://127.0.0.1:{self.ports[airflow.API_SERVER]}",
            airflow_user=layout.OWNER,
            airflow_password=airflow.password(self.secrets),
        )

    @property
    def step_environment(self) -> dict[str, str]:
        """The environment of a step, but for its run: the contract of all backends."""
        return {
            "GIT_URL": self.lab.git_url,
            "GIT_SYNC_USERNAME": layout.STEPS,
            "GIT_SYNC_PASSWORD": gitserver.password(self.secrets, layout.STEPS),
            "DATASET_PATH": self.state.dataset_path,
            **seaweedfs.step_environment(self.secrets, self.ports),
        }


def find_site(config: Config) -> Site:
    """Return the lab that is there, running or not. Raise NotRunningError when there is none."""
    return Site(config, state.require_state(config), Secrets(config))
