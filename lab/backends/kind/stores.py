"""The stores of a lab on kind: their objects and Secrets, accounts, repositories and bucket."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from lab.backends.kind import gitea, injection, minio, node, s3_policies
from lab.backends.kind.services import call_through_door, wait_for_workload
from lab.backends.kind.site import Site
from lab.client import git
from lab.cluster import manifests, workloads
from lab.cluster.manifests import Setting
from lab.cluster.secrets import METADATA, Value, Values, merge_values, random_values
from lab.cluster.workloads import AIRFLOW, STORES
from lab.config import Config
from lab.delivery import pushes, ssh, ssh_door
from lab.home.secrets import Secrets
from lab.layout import BUCKET, PIPELINES, READER, STEPS, TEAM_A
from lab.wait import run_in_parallel

RECEIVER = f"http://{pushes.RECEIVER}.{AIRFLOW}.svc.cluster.local:8080{pushes.PATH}"
GIT_HOST = "gitea.stores.svc.cluster.local"
SSH_PORT = 2222
SSH_FOLDER = "/opt/airflow/team-a-ssh"  # where Airflow's pods have the Secret
STATIC_KEYS = (AIRFLOW, "s3-credentials")  # of labs made by 0.2.0; roles came in their place
OVERLAY = Path("manifests", "overlays", "kind")


def prepare_stores(site: Site) -> None:
    """Apply the manifests, and make the accounts, repositories and the bucket of the stores."""
    rendered = render(site)
    site.cluster.apply(manifests.select_namespaces(rendered))
    write_secrets(site)
    site.cluster.apply(rendered)
    run_in_parallel(
        partial(call_through_door, site, workloads.GITEA, partial(prepare_git, site)),
        partial(call_through_door, site, workloads.MINIO, partial(prepare_s3, site)),
        partial(wait_for_workload, site, workloads.POSTGRESQL),
        partial(wait_for_workload, site, workloads.EKS_AUTH),
        partial(wait_for_workload, site, workloads.AGENT),
        partial(injection.wait_for_injection, site),
    )


def claim_volumes(site: Site) -> None:
    """Have a new lab's volumes made now, while images are still loaded.

    By itself a volume is made when its first pod is scheduled, which then waits for it: 5 s for the
    stores' and as long for Airflow's.
    """
    rendered = render(site)
    site.cluster.apply(manifests.select_namespaces(rendered))
    claims = manifests.select_claims(rendered, node.container_name(site.config))
    site.cluster.apply(claims, manager="mlops-lab-volumes")


def render(site: Site) -> str:
    """Render the overlay with this lab's choices, and keep a copy for reading."""
    path, root = site.state.dataset_path, f"{site.url(workloads.GITEA)}/"
    settings = [
        Setting(AIRFLOW, "step-environment", "DATASET_PATH", path),
        Setting(STORES, "gitea", "GITEA__server__ROOT_URL", root),
    ]
    kit, run = site.config.kit, site.config.run
    rendered = manifests.render(kit / OVERLAY, run / "overlay", site.images.values(), settings)
    references = {key: image.name for key, image in site.images.items()}
    own = site.config.project.images.values()
    rendered = manifests.add_own_templates(rendered, own, references)
    rendered = f"{rendered}---\n{injection.render_identity(kit)}"
    (run / "manifests.yaml").write_text(rendered, "utf-8")
    return rendered


def write_secrets(site: Site) -> None:
    """Write every Secret that the stores and Airflow need to start; delete that of an older lab."""
    for (namespace, name), values in lab_secrets(site).items():
        site.cluster.write_secret(namespace, name, values)
    site.cluster.delete_secret(*STATIC_KEYS)


def lab_secrets(site: Site) -> Values:
    """Return the Secrets of a lab on kind but for the git server's tokens, which it makes later."""
    random = random_values(lambda value: read_stored_value(site.secrets, value), on_kind=True)
    host_key = ssh.ensure_private_key(ssh_door.host_key_file(site.config))
    named = {
        (STORES, "minio"): {"user": site.lab.s3_access_key},
        (STORES, "gitea-ssh"): {"host-key": host_key},
        (AIRFLOW, "team-a-ssh"): team_a_ssh(site.config),
        (AIRFLOW, "airflow-metadata"): {"connection": METADATA},
        (AIRFLOW, "airflow-login"): {"user": site.lab.airflow_user},
        (STORES, "role-keys"): {role: site.role_key(role) for role in site.roles},
    }
    return merge_values(random, named)


def read_stored_value(secrets: Secrets, value: Value) -> str:
    """Return a random value of the lab's own, as a Secret holds it."""
    return value.encode(secrets.get(str(value.stored), value.length))


def team_a_ssh(config: Config) -> dict[str, str]:
    """Return the Secret with which Airflow reads the other team's repository by SSH."""
    url = f"ssh://{ssh.USER}@{GIT_HOST}:{SSH_PORT}/{TEAM_A}.git"
    connection = ssh.airflow_connection(url, f"{SSH_FOLDER}/key", f"{SSH_FOLDER}/config")
    return {
        "key": ssh.ensure_private_key(ssh_door.deploy_key_file(config)),
        "known-hosts": ssh.known_hosts_line(ssh.ensure_private_key(ssh_door.host_key_file(config))),
        "config": ssh.client_config(f"{SSH_FOLDER}/known-hosts"),
        "connection": json.dumps(connection),
    }


def prepare_git(site: Site) -> None:
    """Make Gitea's accounts and repositories, and write their tokens to the cluster."""
    kept = {
        STEPS: read_git_token(site, "git-credentials"),
        READER: read_git_token(site, "pipelines-credentials"),
    }
    tokens = gitea.prepare(
        site.url(workloads.GITEA),
        partial(run_gitea, site),
        site.password,
        {account: value for account, value in kept.items() if value},
        gitea.Listener(RECEIVER, pushes.push_secret(site.secrets)),
        ssh.public_key(ssh.ensure_private_key(ssh_door.deploy_key_file(site.config))),
    )
    url = f"http://{GIT_HOST}:3000/{PIPELINES}.git"
    site.cluster.write_secret(AIRFLOW, "git-credentials", git.git_sync_keys(STEPS, tokens[STEPS]))
    site.cluster.write_secret(
        AIRFLOW,
        "pipelines-credentials",
        {
            **git.git_sync_keys(READER, tokens[READER]),
            "connection": json.dumps(git.airflow_connection(url, READER, tokens[READER])),
        },
    )


def read_git_token(site: Site, secret: str) -> str | None:
    """Return the git token that a Secret of the cluster holds, or None."""
    return (site.cluster.read_secret(AIRFLOW, secret) or {}).get("GIT_SYNC_PASSWORD")


def run_gitea(site: Site, arguments: list[str]) -> str:
    """Run Gitea's own command line in its pod; return what it printed."""
    command = ["gitea", "--config", "/etc/gitea/app.ini", *arguments]
    return site.cluster.execute(STORES, "gitea-0", command)


def prepare_s3(site: Site) -> None:
    """Make the bucket in MinIO, and an account for each role, with the role's policies."""
    minio.prepare(
        site.url(workloads.MINIO),
        site.lab.s3_access_key,
        site.lab.s3_secret_key,
        BUCKET,
        [
            minio.Account(
                role.name,
                site.role_key(role.name),
                s3_policies.read_role_policy(site.config.kit, role, BUCKET),
            )
            for role in site.roles.values()
        ],
    )
