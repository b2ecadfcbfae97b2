"""The kind backend: a whole lab on real Kubernetes, in one container of this machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from lab.backends import choices, doctor
from lab.backends.doctor import Finding
from lab.backends.kind import doors, evidence, gitea, minio, node
from lab.backends.kind.doctor import LOOKS
from lab.client import git, runs, s3
from lab.cluster import chart, images, manifests, workloads
from lab.cluster.api import Cluster
from lab.cluster.images import Image
from lab.cluster.manifests import Setting
from lab.cluster.workloads import AIRFLOW, STORES, Workload
from lab.config import Config
from lab.dataset import first_version
from lab.dataset.employees import EMPLOYEES_NAME
from lab.delivery import publish, pushes, ssh, ssh_door
from lab.errors import LabError
from lab.home import ports, processes, state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.layout import BUCKET, DATASETS, OWNER, PIPELINES, READER, STEPS, TEAM_A
from lab.model import Service
from lab.progress import Report, silent, title
from lab.wait import NotYet, together, until

NAME = "kind"
START_SECONDS = 240
RECEIVER = f"http://{pushes.RECEIVER}.{AIRFLOW}.svc.cluster.local:8080{pushes.PATH}"
GIT_HOST = "gitea.stores.svc.cluster.local"
SSH_PORT = 2222
SSH_FOLDER = "/opt/airflow/team-a-ssh"  # where Airflow's pods have the Secret
OVERLAY = Path("manifests", "overlays", "kind")
VALUES = tuple(Path("manifests", "airflow", name) for name in ("values.yaml", "values-kind.yaml"))
PORTS = tuple(workload.name for workload in workloads.DOORS)


@dataclass(frozen=True)
class Site:
    """One lab on kind: its choices, its secrets, its cluster."""

    config: Config
    state: State
    secrets: Secrets

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster(node.kubeconfig(self.config))

    @cached_property
    def images(self) -> dict[str, Image]:
        return images.locked(self.config.tree)

    @property
    def forwards(self) -> list[Service]:
        """The processes that bring the cluster's doors to loopback."""
        return [self.forward(workload) for workload in workloads.DOORS]

    def forward(self, workload: Workload) -> Service:
        """The process that brings one door to loopback."""
        return doors.service(self.config, workload, self.state.ports[workload.name])

    def url(self, workload: Workload) -> str:
        """Where this machine reaches a workload."""
        return f"http://127.0.0.1:{self.state.ports[workload.name]}"

    def password(self, account: str) -> str:
        """The git server's password of an account."""
        return self.secrets.get(f"git_{account}_password")

    @property
    def lab(self) -> Lab:
        """Where the lab's servers are, and how to be let in."""
        git = self.url(workloads.GITEA)
        return Lab(
            backend=NAME,
            git_url=f"{git}/{DATASETS}.git",
            git_user=OWNER,
            git_password=self.password(OWNER),
            git_page=f"{git}/{DATASETS}/commits/branch/main",
            s3_endpoint=self.url(workloads.MINIO),
            s3_region=s3.REGION,
            s3_bucket=BUCKET,
            s3_access_key=self.secrets.get("s3_admin_access_key", 12),
            s3_secret_key=self.secrets.get("s3_admin_secret_key"),
            s3_session_token="",
            dataset_path=self.state.dataset_path,
            airflow_url=self.url(workloads.API_SERVER),
            airflow_user=OWNER,
            airflow_password=self.secrets.get("airflow_password"),
        )


def diagnose(config: Config) -> list[Finding]:
    """What this machine has and lacks for a lab on kind."""
    return list(doctor.findings(config, LOOKS))


def check(config: Config) -> None:
    """Raises the LabError of the first thing that keeps a lab from running; changes nothing."""
    if config.database == "sqlite":
        raise LabError(
            "a lab on kind keeps Airflow's metadata in PostgreSQL", "leave --database out"
        )
    doctor.refuse_unfit_machine(config, LOOKS)
    known = state.read(config)
    held = dict(known.ports) if known else {}
    if known:
        choices.refuse_others(config, known)
    choices.refuse_unknown_pins(config, PORTS)
    running = {name for name in held if processes.find(config, name)}
    choices.refuse_moved(config, held, running)
    wanted = {**held, **config.ports}
    ports.refuse_held({name: n for name, n in wanted.items() if name not in running})


def up(config: Config, report: Report = silent) -> Lab:
    """A whole lab runs and answers; what runs already is left alone, what is missing is added."""
    with report("Check this machine and the choices made"):
        check(config)
    with state.exclusive(config), processes.only_command(config):
        site = settle(config)
        for do in (
            collect_images,
            create_cluster,
            start_stores,
            publish_pipelines,
            install_airflow,
            await_airflow,
        ):
            with report(title(do)):
                do(site)
    return site.lab


def settle(config: Config) -> Site:
    """The lab's choices are on the disk: those of an earlier `up`, or new ones."""
    return Site(config, state.settled(config, first_state), Secrets(config))


def first_state(config: Config) -> State:
    return State(
        backend=NAME,
        database="postgresql",
        dataset_path=first_version.path_of(config.dataset or Path(EMPLOYEES_NAME)),
        dataset_source=str(config.dataset) if config.dataset else None,
        ports=ports.choose(PORTS, config.ports, 0),
    )


def collect_images(site: Site) -> None:
    """Build or bring the images."""
    known = images.collect(site.config.tree)
    for key in (*images.STORES, *images.AIRFLOW):
        images.archive(known[key])


def create_cluster(site: Site) -> None:
    """Create the cluster and load the stores' images."""
    node.clear(site.config)
    jobs = [
        partial(node.ensure, site.config, site.images["node"]),
        partial(load, site, images.STORES),
    ]
    if node.state(site.config) is None:  # a new lab: its dataset will be needed
        jobs.append(partial(first_version.prepare, site.config, site.state))
    together(*jobs)
    until(partial(answer, site), what="the Kubernetes API", timeout=START_SECONDS, interval=0.5)


def answer(site: Site) -> None:
    """Raises NotYet until the cluster's API serves and its node takes pods."""
    try:
        shown = site.cluster.kubectl("get", "nodes", "--output", "json", timeout=10)
    except LabError as error:
        raise NotYet(error.what.splitlines()[-1].strip()) from error
    for found in json.loads(shown)["items"]:
        if not any(
            c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"]
        ):
            raise NotYet("the node is not ready")


def load(site: Site, keys: tuple[str, ...]) -> None:
    """The node holds these images."""
    node.await_containerd(site.config)
    node.load(site.config, [site.images[key] for key in keys])


def start_stores(site: Site) -> None:
    """Start S3, git and the database; load Airflow's images."""
    together(partial(prepare_stores, site), partial(load, site, images.AIRFLOW))


def prepare_stores(site: Site) -> None:
    """The manifests are applied, and the stores have their accounts, repositories and buckets."""
    rendered = render(site)
    site.cluster.apply(manifests.namespaces(rendered))
    write_secrets(site)
    site.cluster.apply(rendered)
    together(partial(prepare_git, site), partial(prepare_s3, site), partial(prepare_database, site))


def render(site: Site) -> str:
    """The overlay with this lab's choices; a copy stays for reading."""
    path, root = site.state.dataset_path, f"{site.url(workloads.GITEA)}/"
    settings = [
        Setting(AIRFLOW, "step-environment", "DATASET_PATH", path),
        Setting(STORES, "gitea", "GITEA__server__ROOT_URL", root),
    ]
    tree, run = site.config.tree, site.config.run
    rendered = manifests.render(tree / OVERLAY, run / "overlay", site.images.values(), settings)
    (run / "manifests.yaml").write_text(rendered, "utf-8")
    return rendered


def write_secrets(site: Site) -> None:
    """The cluster has every secret that the stores and Airflow need to start."""
    for (namespace, name), values in random_secrets(site).items():
        site.cluster.write_secret(namespace, name, values)


def random_secrets(site: Site) -> Mapping[tuple[str, str], Mapping[str, str]]:
    """The Secrets made of random values, by namespace and name."""
    get, lab = site.secrets.get, site.lab
    database = get("postgresql_password")
    return {
        (STORES, "minio"): {
            "user": lab.s3_access_key,
            "password": lab.s3_secret_key,
            "encryption-key": f"lab:{base64_key(get('minio_encryption_key', 32))}",
        },
        (STORES, "postgresql"): {"password": database},
        (STORES, "gitea"): {
            "secret-key": get("gitea_secret_key"),
            "internal-token": get("gitea_internal_token", 48),
            "jwt-secret": get("gitea_jwt_secret", 32),
        },
        (STORES, "gitea-ssh"): {"host-key": ssh.private(ssh_door.host_key(site.config))},
        (AIRFLOW, "team-a-ssh"): team_a_ssh(site.config),
        (AIRFLOW, "airflow-metadata"): {
            # Without the password: Airflow has it as PGPASSWORD, so it is part of no address.
            "connection": "postgresql://airflow@postgresql.stores.svc.cluster.local:5432/airflow",
            "password": database,
        },
        (AIRFLOW, "airflow-fernet-key"): {"fernet-key": get("airflow_fernet_key", 32) + "="},
        (AIRFLOW, "airflow-api-secret-key"): {"api-secret-key": get("airflow_api_secret_key")},
        (AIRFLOW, "airflow-jwt-secret"): {"jwt-secret": get("airflow_jwt_secret", 48)},
        (AIRFLOW, "push-secret"): {"secret": pushes.secret(site.secrets)},
        (AIRFLOW, "airflow-login"): {"user": lab.airflow_user, "password": lab.airflow_password},
        (AIRFLOW, "s3-credentials"): {
            "AWS_ACCESS_KEY_ID": STEPS,
            "AWS_SECRET_ACCESS_KEY": get("s3_steps_secret_key"),
        },
    }


def team_a_ssh(config: Config) -> dict[str, str]:
    """How Airflow reads the other team's repository: by a key, from the server that it knows."""
    url = f"ssh://{ssh.USER}@{GIT_HOST}:{SSH_PORT}/{TEAM_A}.git"
    connection = ssh.connection(url, f"{SSH_FOLDER}/key", f"{SSH_FOLDER}/config")
    return {
        "key": ssh.private(ssh_door.deploy_key(config)),
        "known-hosts": ssh.known_hosts(ssh.private(ssh_door.host_key(config))),
        "config": ssh.config(f"{SSH_FOLDER}/known-hosts"),
        "connection": json.dumps(connection),
    }


def base64_key(text: str) -> str:
    """32 bytes of URL-safe base64 in the standard alphabet, padded, which MinIO wants."""
    return text.translate(str.maketrans("-_", "+/")) + "="


def prepare_git(site: Site) -> None:
    """Gitea has the lab's accounts and repositories; the cluster has the tokens."""
    reach(site, workloads.GITEA)
    kept = {
        STEPS: token(site, "git-credentials"),
        READER: token(site, "pipelines-credentials"),
    }
    tokens = gitea.prepare(
        site.url(workloads.GITEA),
        partial(gitea_command, site),
        site.password,
        {account: value for account, value in kept.items() if value},
        gitea.Listener(RECEIVER, pushes.secret(site.secrets)),
        ssh.public(ssh.private(ssh_door.deploy_key(site.config))),
    )
    url = f"http://{GIT_HOST}:3000/{PIPELINES}.git"
    site.cluster.write_secret(AIRFLOW, "git-credentials", git.sync_keys(STEPS, tokens[STEPS]))
    site.cluster.write_secret(
        AIRFLOW,
        "pipelines-credentials",
        {
            **git.sync_keys(READER, tokens[READER]),
            "connection": json.dumps(git.connection(url, READER, tokens[READER])),
        },
    )


def token(site: Site, secret: str) -> str | None:
    """The token that a Secret of the cluster holds."""
    return (site.cluster.secret(AIRFLOW, secret) or {}).get("GIT_SYNC_PASSWORD")


def gitea_command(site: Site, arguments: list[str]) -> str:
    """What Gitea's own command line printed in its pod."""
    command = ["gitea", "--config", "/etc/gitea/app.ini", *arguments]
    return site.cluster.execute(STORES, "gitea-0", command)


def prepare_s3(site: Site) -> None:
    """MinIO has the bucket, and the steps' account that may use it."""
    reach(site, workloads.MINIO)
    minio.prepare(
        site.url(workloads.MINIO),
        site.lab.s3_access_key,
        site.lab.s3_secret_key,
        BUCKET,
        STEPS,
        site.secrets.get("s3_steps_secret_key"),
    )


def prepare_database(site: Site) -> None:
    """PostgreSQL serves."""
    workloads.await_ready(site.cluster, workloads.POSTGRESQL, START_SECONDS)


def reach(site: Site, workload: Workload) -> None:
    """The workload serves, and answers on its port of this machine."""
    workloads.await_ready(site.cluster, workload, START_SECONDS)
    service = site.forward(workload)
    processes.ensure(site.config, service)
    processes.await_ready(site.config, service, START_SECONDS)


def publish_pipelines(site: Site) -> None:
    """Publish the DAGs to the git server, and begin the other repositories."""
    published_commit(site)
    publish.empty(site.lab, f"{site.url(workloads.GITEA)}/{TEAM_A}.git")


def published_commit(site: Site) -> str | None:
    """The commit that holds the checkout's DAGs, or None where the branch is somebody else's."""
    url = f"{site.url(workloads.GITEA)}/{PIPELINES}.git"
    return publish.dags(site.lab, url, site.config.tree / "dags")


def install_airflow(site: Site) -> None:
    """Install Airflow by its chart; store the dataset and commit its first version."""
    together(partial(publish_dataset, site), partial(install_chart, site))


def install_chart(site: Site) -> None:
    """Airflow's release is made of this checkout's values."""
    chart.install(site.config, site.cluster, values(site))


def values(site: Site) -> list[Path]:
    """The files of values that the chart is installed with, the strongest last."""
    tree, file = site.config.tree, site.config.run / "values-images.yaml"
    own = manifests.write_values(tree, site.images, file)
    return [*(tree / name for name in VALUES), own]


def publish_dataset(site: Site) -> None:
    """Store the dataset in S3 and commit its first version."""
    if published(site):
        return
    if not first_version.source(site.config, site.state).exists():
        first_version.prepare(site.config, site.state)
    first_version.publish(site.config, site.state, import_environment(site))


def published(site: Site) -> bool:
    """Whether the datasets repository has a pointer at the dataset's path."""
    pointer = f"{site.state.dataset_path}.dvc"
    owner = gitea.by_password(site.url(workloads.GITEA), OWNER, site.password(OWNER))
    return owner.find(f"repos/{DATASETS}/contents/{pointer}?ref=main") is not None


def import_environment(site: Site) -> dict[str, str]:
    """What the import sees: the contract, with the addresses that this machine reaches."""
    steps = replace(
        site.lab,
        s3_access_key=STEPS,
        s3_secret_key=site.secrets.get("s3_steps_secret_key"),
        git_user=STEPS,
        git_password=site.password(STEPS),
    )
    return first_version.environment(site.config, steps)


def await_airflow(site: Site) -> None:
    """Wait until Airflow is healthy and knows the pipelines."""
    together(*(partial(await_component, site, w) for w in workloads.AIRFLOW_COMPONENTS))
    if commit := published_commit(site):
        publish.await_parsed(site.lab, site.config.tree / "dags", commit, START_SECONDS)


def await_component(site: Site, workload: Workload) -> None:
    if workload.door:
        reach(site, workload)
    else:
        workloads.await_ready(site.cluster, workload, START_SECONDS)


def restore(config: Config) -> None:
    """Every service answers again; nothing is restarted for it but this machine's forwards."""
    site = find(config)
    node.ensure(config, site.images["node"])
    until(partial(answer, site), what="the Kubernetes API", timeout=START_SECONDS, interval=0.5)
    together(*(partial(await_component, site, w) for w in workloads.WORKLOADS))
    until(partial(log_in, site), what="Airflow's login", timeout=START_SECONDS, interval=1)


def log_in(site: Site) -> None:
    """Raises NotYet while Airflow lets nobody in: its database may have been restarted."""
    try:
        runs.token(site.lab)
    except LabError as error:
        raise NotYet(error.what) from error


def find(config: Config) -> Site:
    """The lab that is there, running or not. Raises NotRunningError when there is none."""
    return Site(config, state.known(config), Secrets(config))


def connect(config: Config) -> Lab:
    """The running lab. Raises NotRunningError, naming what does not run."""
    processes.refuse_stopped(list_services(config))
    return find(config).lab


def list_services(config: Config) -> list[tuple[Service, bool]]:
    """Each service, and whether it runs and is reached."""
    site = find(config)
    alive = node.state(config) == "running" and node.kubeconfig(config).exists()
    return [(service_of(site, w), alive and running(site, w)) for w in workloads.WORKLOADS]


def service_of(site: Site, workload: Workload) -> Service:
    if workload.door:
        return site.forward(workload)
    return Service(workload.name, (), site.config.run, {}, lambda: None)


def running(site: Site, workload: Workload) -> bool:
    """Whether a pod serves, and the process that brings its port here runs."""
    with contextlib.suppress(LabError):
        here = not workload.door or processes.find(site.config, workload.name) is not None
        return here and workloads.serves(site.cluster, workload)
    return False


def undeclared_ports(config: Config) -> list[int]:
    """Ports on which a process of the lab listens though no service names them."""
    return processes.undeclared(config, find(config).forwards)


def log_files(config: Config) -> dict[str, Path]:
    """A file per service with what its pods have logged, as it is now."""
    return evidence.logs(config, find(config).cluster)


def follow_commands(config: Config, wanted: list[str]) -> list[list[str | Path]]:
    """What prints the logs of these services as they grow."""
    return evidence.follow_commands(find(config).cluster, wanted)


def collect_evidence(config: Config, folder: Path) -> None:
    """`folder` holds what tells why a lab failed: pods, events, logs, manifests, values."""
    site = find(config)
    evidence.collect(config, site.cluster, folder, values(site))


def remove_leftovers(config: Config) -> None:
    """There is no cluster of this home, though no state tells of one; without Docker, as it is."""
    with contextlib.suppress(LabError):
        if node.state(config):
            node.delete(config)


def down(config: Config, *, purge: bool = False) -> int:
    """Nothing of the lab runs; with `purge` there is no cluster and no `.lab/` either.

    How many processes and nodes were ended. Works on whatever an interrupted command left.
    """
    made = (config.home / "lock").exists()
    with state.exclusive(config) if made else contextlib.nullcontext():
        ended = processes.end_all(config)
        if purge:
            ended += node.state(config) is not None
            node.delete(config)
            state.remove(config)
        else:
            ended += node.stop(config)
    return ended
