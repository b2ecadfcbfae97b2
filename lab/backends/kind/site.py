"""One lab on kind: its choices, its secrets, its cluster, and where its servers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import quote

from lab.backends.kind import doors, gitea, node
from lab.backends.kind.loading import Loading
from lab.client import s3
from lab.cluster import associations, images, workloads
from lab.cluster.api import Cluster
from lab.cluster.associations import Role
from lab.cluster.images import Image
from lab.cluster.workloads import Workload
from lab.config import TABLE_DAG, Config
from lab.dataset import first_version
from lab.home import state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.layout import BUCKET, DATASETS, OWNER, STEPS
from lab.model import Service

NAME = "kind"


@dataclass(frozen=True)
class Site:
    """One lab on kind: its choices, its secrets, its cluster."""

    config: Config
    state: State
    secrets: Secrets
    commits: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster(node.kubeconfig_path(self.config))

    @property
    def images(self) -> dict[str, Image]:
        """The images by key, as Docker has them now."""
        return images.choose(images.read_lock(self.config))

    @cached_property
    def loading(self) -> Loading:
        """The images that the project's own DAG needs, on their way into the node."""
        known = images.read_lock(self.config)
        return Loading(self.config, known, self.split_images(known)[0])

    @cached_property
    def loading_later(self) -> Loading:
        """The other images, on their way into the node."""
        known = images.read_lock(self.config)
        return Loading(self.config, known, self.split_images(known)[1])

    def split_images(self, known: Mapping[str, Image]) -> tuple[list[str], list[str]]:
        """Return the keys of the images that the project's own DAG needs, and the others.

        Of the kit's own DAG that is known; any other one may need each.
        """
        keys = images.list_loaded(known)
        first = keys.index("worker") + 1 if self.config.project.dag == TABLE_DAG else len(keys)
        return keys[:first], keys[first:]

    @property
    def forwards(self) -> list[Service]:
        """The processes that forward ports of this machine into the cluster."""
        return [self.forward(workload) for workload in workloads.DOORS]

    def forward(self, workload: Workload) -> Service:
        """Return the process that forwards a port of this machine to a workload."""
        return doors.forward_service(self.config, workload, self.state.ports[workload.name])

    def url(self, workload: Workload) -> str:
        """Return where this machine reaches a workload."""
        return f"http://127.0.0.1:{self.state.ports[workload.name]}"

    def password(self, account: str) -> str:
        """Return an account's password for the git server."""
        return self.secrets.get(f"git_{account}_password")

    @cached_property
    def roles(self) -> dict[str, Role]:
        """The roles of the lab's service accounts, by name."""
        return {role.name: role for role in associations.read_roles(self.config.kit)}

    def role_key(self, role: str) -> str:
        """Return the secret key of a role's account in MinIO."""
        return self.secrets.get(f"s3_{role}_secret_key")

    @property
    def lab(self) -> Lab:
        """The lab's addresses and credentials."""
        return Lab(
            backend=NAME,
            git_url=self.repository_url(DATASETS),
            git_user=OWNER,
            git_password=self.password(OWNER),
            git_page=f"{self.url(workloads.GITEA)}/{DATASETS}/commits/branch/main",
            s3_endpoint=self.url(workloads.MINIO),
            s3_region=s3.REGION,
            s3_bucket=BUCKET,
            s3_access_key=self.secrets.get("s3_admin_access_key", 12),
            s3_secret_key=self.secrets.get("s3_admin_secret_key"),
            s3_session_token="",
            dataset_path=self.state.dataset_path,
            dataset_name=self.config.project.main,
            data_sets=self.config.project.name_other_paths(self.state.dataset_path),
            airflow_url=self.url(workloads.API_SERVER),
            airflow_user=OWNER,
            airflow_password=self.secrets.get("airflow_password"),
        )

    def repository_url(self, repository: str) -> str:
        """Return where this machine reaches a repository of the lab's git server."""
        return f"{self.url(workloads.GITEA)}/{repository}.git"

    def has_file(self, repository: str, path: str) -> bool:
        """Return whether the main branch of a repository has a file at `path`."""
        owner = gitea.api_with_password(self.url(workloads.GITEA), OWNER, self.password(OWNER))
        return owner.find(f"repos/{repository}/contents/{quote(path)}?ref=main") is not None

    def import_environment(self) -> dict[str, str]:
        """Return all that the import of the first version sees, at addresses of this machine."""
        steps = replace(
            self.lab,
            s3_access_key=STEPS,
            s3_secret_key=self.role_key(STEPS),
            git_user=STEPS,
            git_password=self.password(STEPS),
        )
        return first_version.import_environment(self.config, steps)


def find_site(config: Config) -> Site:
    """Return the lab that is there, running or not. Raise NotRunningError when there is none."""
    return Site(config, state.require_state(config), Secrets(config))
