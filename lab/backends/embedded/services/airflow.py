"""Airflow: four processes and the environment they share."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import yaml

from lab import layout
from lab.backends.embedded import own_images
from lab.backends.embedded.services import gitserver
from lab.config import PLUGINS, Config
from lab.delivery import pushes
from lab.files import write_private_file
from lab.home.code import digest_code
from lab.home.processes import environment as environment_of
from lab.home.secrets import Secrets
from lab.model import Port, Service
from lab.shell import run
from lab.wait import NotYet, expect_answer

API_SERVER = pushes.RECEIVER
COMPONENTS = (API_SERVER, "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
MIGRATE_SECONDS = 180
# Airflow forks without exec; Apple's libraries abort such a child unless told otherwise.
MACOS = {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "no_proxy": "*"}
VALUES = Path("manifests", "airflow", "values.yaml")  # what holds on every backend
EXTENSIONS = "lab.backends.embedded.airflow_extensions"
# Settings of the chart that would start what no embedded lab has: pods, a server for probes.
CLUSTER_ONLY = {"kubernetes_executor", "scheduler.enable_health_check"}
# Logs are files on this machine: the servers that serve them to other hosts stay off.
FLAGS = {
    "airflow-scheduler": ("--skip-serve-logs",),
    "airflow-triggerer": ("--skip-serve-logs",),
}


def build_services(
    config: Config, secrets: Secrets, ports: dict[str, int], database: str
) -> list[Service]:
    """Return the four components, the api-server first."""
    shared = environment(config, secrets, ports, database)
    return [
        build_component(config, name, shared, ports[API_SERVER], secrets) for name in COMPONENTS
    ]


def build_component(
    config: Config, name: str, shared: dict[str, str], port: int, secrets: Secrets
) -> Service:
    web = Port(
        API_SERVER, port, "a random password for the pages and the API, tokens for the tasks"
    )
    own = {pushes.VARIABLE: pushes.push_secret(secrets)} if name == API_SERVER else {}
    return Service(
        name=name,
        command=(*airflow_command(), name.removeprefix("airflow-"), *FLAGS.get(name, ())),
        folder=home_folder(config),
        environment={**shared, **own},
        ready=lambda: check_healthy(port, name),
        ports=(web,) if name == API_SERVER else (),
        prepare=lambda: prepare(config, secrets),
        code=partial(digest_code, config.kit),
    )


def airflow_command() -> tuple[str, ...]:
    """Return the command that runs Airflow with this Python."""
    return sys.executable, "-m", f"{EXTENSIONS}.component"


def home_folder(config: Config) -> Path:
    return config.data / "airflow"


def temporary_folder(config: Config) -> Path:
    """Return the temporary folder: in the lab, so that killed processes leave no file elsewhere."""
    return config.run / "tmp"


def steps_file(config: Config) -> Path:
    return config.secrets / "steps.json"


def prepare(config: Config, secrets: Secrets) -> None:
    """Create the folders and write the password file."""
    for folder in (home_folder(config), temporary_folder(config), config.shared):
        folder.mkdir(mode=0o700, exist_ok=True)
    passwords = config.secrets / "airflow-passwords.json"
    write_private_file(passwords, json.dumps({layout.OWNER: password(secrets)}))


def password(secrets: Secrets) -> str:
    return secrets.get("airflow_password")


def environment(
    config: Config, secrets: Secrets, ports: dict[str, int], database: str
) -> dict[str, str]:
    """Return the environment of every component: AIRFLOW__* settings, connections, the runtime."""
    url = f"http://127.0.0.1:{ports[API_SERVER]}"
    settings = {
        **read_shared_settings(config.kit),
        "CORE__EXECUTOR": f"{EXTENSIONS}.executor.RepairingLocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PLUGINS_FOLDER": str(config.kit / PLUGINS),
        "CORE__FERNET_KEY": fernet_key(secrets),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{layout.OWNER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(config.secrets / "airflow-passwords.json"),
        **metadata(database),
        "API__HOST": "127.0.0.1",
        "API__PORT": str(ports[API_SERVER]),
        "API__BASE_URL": url,
        "API__SECRET_KEY": secrets.get("airflow_api_secret_key"),
        "API_AUTH__JWT_SECRET": secrets.get("airflow_jwt_secret", 48),
        "LOGGING__BASE_LOG_FOLDER": str(config.logs / "tasks"),
    }
    return {
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        "AIRFLOW_HOME": str(home_folder(config)),
        **connection_variables(config, secrets, ports),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home_folder(config) / "bundles"),
        "STEP_RUNTIME": "process",
        "STEP_ENVIRONMENT_FILE": str(steps_file(config)),
        "STEP_IMAGES": str(own_images.folder(config)),
        "TMPDIR": str(temporary_folder(config)),
        "PYTHONPATH": str(config.kit / PLUGINS),  # sitecustomize is there
        "NEWEST_TASK_API_ONLY": "1",  # `up` starts all components anew when one has changed
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "SPT_NOENV": "1",  # keep the environment readable: it carries the lab's mark
        "PYTHONUNBUFFERED": "1",
        **(MACOS if sys.platform == "darwin" else {}),
    }


def metadata(url: str) -> dict[str, str]:
    """Return the settings of Airflow's database."""
    if not url.startswith("sqlite"):
        return {"DATABASE__SQL_ALCHEMY_CONN": url}
    return {
        "DATABASE__SQL_ALCHEMY_CONN": url,
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS": f"{EXTENSIONS}.sqlite.CONNECT_ARGS",
    }


def read_shared_settings(kit: Path) -> dict[str, str]:
    """Return the settings that hold on every backend, which the chart's values have.

    DAGs come from the same branches as on a cluster and as soon, and what was killed is noticed
    after the same seconds.
    """
    values = yaml.safe_load((kit / VALUES).read_text("utf-8"))
    bundles = json.dumps(values["dagProcessor"]["dagBundleConfigList"])
    found = {
        f"{section}__{name}".upper(): str(value)
        for section, options in values["config"].items()
        for name, value in options.items()
        if section not in CLUSTER_ONLY and f"{section}.{name}" not in CLUSTER_ONLY
    }
    return {**found, "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": bundles}


def fernet_key(secrets: Secrets) -> str:
    """Return 32 random bytes in URL-safe base64, with the padding that Fernet requires."""
    return secrets.get("airflow_fernet_key", 32) + "="


def connection_variables(config: Config, secrets: Secrets, ports: dict[str, int]) -> dict[str, str]:
    """Return the variables of the connections to the repositories that the bundles name."""
    repositories = {"lab_git": layout.PIPELINES, "lab_git_team_a": layout.TEAM_A}
    made = partial(gitserver.airflow_connection, config, secrets, ports)
    return {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps(made(repository))
        for name, repository in repositories.items()
    }


def database_file(config: Config) -> Path:
    return home_folder(config) / "airflow.db"


def is_migrated(config: Config) -> bool:
    """Return whether the tables are those of the installed version."""
    try:
        return migrated_version_file(config).read_text("utf-8") == version("apache-airflow")
    except FileNotFoundError:
        return False


def migrated_version_file(config: Config) -> Path:
    return home_folder(config) / "migrated"


def clear_sqlite(config: Config) -> None:
    """Delete the database files if they exist."""
    for path in home_folder(config).glob("airflow.db*"):
        path.unlink()


def migrate_database(config: Config, service: Service, clear: Callable[[], None]) -> None:
    """Migrate Airflow's tables to the installed version; call `clear` before a first migration."""
    if not migrated_version_file(config).exists():
        clear()
    run(
        [*airflow_command(), "db", "migrate"],
        timeout=MIGRATE_SECONDS,
        fix="lab down --purge, then lab up",
        env=environment_of(config, service),
    )
    write_private_file(migrated_version_file(config), version("apache-airflow"))


def write_steps_environment(config: Config, variables: dict[str, str]) -> None:
    """Write the whole environment of a step to a file that only the lab's owner can read."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    fixed = {
        "PATH": path,
        "HOME": str(config.shared),  # no ~/.aws, no ~/.gitconfig
        "SHARED_DIR": str(config.shared),
        "TMPDIR": str(temporary_folder(config)),
    }
    write_private_file(steps_file(config), json.dumps({**fixed, **variables}, indent=1))


def read_steps_environment(config: Config) -> dict[str, str]:
    """Read the environment of a step, as it was written for Airflow."""
    known: dict[str, str] = json.loads(steps_file(config).read_text("utf-8"))
    return known


def check_healthy(port: int, name: str) -> None:
    """Raise NotYet until the api-server says that the component is healthy."""
    reply = expect_answer(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=10)
    key = name.removeprefix("airflow-").replace("-", "_")
    status = (reply.json().get(key) or {"status": "unknown"})["status"]
    if key != "api_server" and status != "healthy":
        raise NotYet(f"{name} is {status}")


def warm_up_api(port: int) -> None:
    """Make the api-server build the API that tasks talk to: the first call takes seconds."""
    import requests

    requests.get(f"http://127.0.0.1:{port}/execution/health/ping", timeout=60)
