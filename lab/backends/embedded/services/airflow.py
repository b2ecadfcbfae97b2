"""Airflow: four processes and the environment that they share."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import requests
import yaml

from lab import layout
from lab.backends.embedded.services import gitserver
from lab.config import PLUGINS, Config
from lab.delivery import pushes
from lab.files import write_private
from lab.home.processes import environment as environment_of
from lab.home.secrets import Secrets
from lab.model import Port, Service
from lab.shell import run
from lab.wait import NotYet

API_SERVER = pushes.RECEIVER
COMPONENTS = (API_SERVER, "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
MIGRATE_SECONDS = 180
# Airflow forks without exec; Apple's libraries end such a child unless told otherwise.
MACOS = {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "no_proxy": "*"}
VALUES = Path("manifests", "airflow", "values.yaml")  # what holds on every backend
EXTENSIONS = "lab.backends.embedded.airflow_extensions"
PROGRAM = Path(sysconfig.get_path("scripts")) / "airflow"
# Logs are files on this machine: the servers that offer them to other hosts stay off.
FLAGS = {
    "airflow-scheduler": ("--skip-serve-logs",),
    "airflow-triggerer": ("--skip-serve-logs",),
}


def services(
    config: Config, secrets: Secrets, ports: dict[str, int], database: str
) -> list[Service]:
    """The four components, api-server first."""
    shared = environment(config, secrets, ports, database)
    return [component(config, name, shared, ports[API_SERVER], secrets) for name in COMPONENTS]


def component(
    config: Config, name: str, shared: dict[str, str], port: int, secrets: Secrets
) -> Service:
    web = Port(
        API_SERVER, port, "a random password for the pages and the API, tokens for the tasks"
    )
    own = {pushes.VARIABLE: pushes.secret(secrets)} if name == API_SERVER else {}
    return Service(
        name=name,
        command=(*airflow(), name.removeprefix("airflow-"), *FLAGS.get(name, ())),
        folder=home(config),
        environment={**shared, **own},
        ready=lambda: healthy(port, name),
        ports=(web,) if name == API_SERVER else (),
        prepare=lambda: prepare(config, secrets),
    )


def airflow() -> tuple[str, str]:
    """Airflow's command line, by this very Python."""
    return sys.executable, str(PROGRAM)


def home(config: Config) -> Path:
    return config.data / "airflow"


def temporary(config: Config) -> Path:
    """Temporary files stay in the lab, so that killing a process leaves none elsewhere."""
    return config.run / "tmp"


def steps_file(config: Config) -> Path:
    return config.secrets / "steps.json"


def prepare(config: Config, secrets: Secrets) -> None:
    """Folders and the password file are in place."""
    for folder in (home(config), temporary(config), config.shared):
        folder.mkdir(mode=0o700, exist_ok=True)
    passwords = config.secrets / "airflow-passwords.json"
    write_private(passwords, json.dumps({layout.OWNER: password(secrets)}))


def password(secrets: Secrets) -> str:
    return secrets.get("airflow_password")


def environment(
    config: Config, secrets: Secrets, ports: dict[str, int], database: str
) -> dict[str, str]:
    """AIRFLOW__* variables for every component, and the connection to the git server."""
    url = f"http://127.0.0.1:{ports[API_SERVER]}"
    settings = {
        "CORE__EXECUTOR": f"{EXTENSIONS}.executor.RepairingLocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PLUGINS_FOLDER": str(config.tree / PLUGINS),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__FERNET_KEY": fernet_key(secrets),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{layout.OWNER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(config.secrets / "airflow-passwords.json"),
        **metadata(database),
        "API__HOST": "127.0.0.1",
        "API__PORT": str(ports[API_SERVER]),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "API__SECRET_KEY": secrets.get("airflow_api_secret_key"),
        "API_AUTH__JWT_SECRET": secrets.get("airflow_jwt_secret", 48),
        "LOGGING__BASE_LOG_FOLDER": str(config.logs / "tasks"),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        **delivery(config.tree),
        **recovery(),
    }
    return {
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        "AIRFLOW_HOME": str(home(config)),
        **connections(config, secrets, ports),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home(config) / "bundles"),
        "STEP_RUNTIME": "process",
        "STEP_ENVIRONMENT_FILE": str(steps_file(config)),
        "TMPDIR": str(temporary(config)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "SPT_NOENV": "1",  # keep the environment readable: it carries the lab's mark
        "PYTHONUNBUFFERED": "1",
        **(MACOS if sys.platform == "darwin" else {}),
    }


def metadata(url: str) -> dict[str, str]:
    """Where Airflow keeps what it knows."""
    if not url.startswith("sqlite"):
        return {"DATABASE__SQL_ALCHEMY_CONN": url}
    return {
        "DATABASE__SQL_ALCHEMY_CONN": url,
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS": f"{EXTENSIONS}.sqlite.CONNECT_ARGS",
    }


def delivery(tree: Path) -> dict[str, str]:
    """DAGs come from the same branches as on a cluster, and as soon."""
    values = yaml.safe_load((tree / VALUES).read_text("utf-8"))
    bundles = json.dumps(values["dagProcessor"]["dagBundleConfigList"])
    settings = {**values["config"]["dag_processor"], "dag_bundle_config_list": bundles}
    return {f"DAG_PROCESSOR__{name.upper()}": str(value) for name, value in settings.items()}


def recovery() -> dict[str, str]:
    """How soon Airflow finds out that something was killed, in seconds.

    A task's heartbeat may be missed for 30 s, so that a restart of the api-server kills no task.
    """
    return {
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        "WORKERS__MAX_FAILED_HEARTBEATS": "15",
    }


def fernet_key(secrets: Secrets) -> str:
    """32 random bytes in URL-safe base64, with the padding that Fernet wants."""
    return secrets.get("airflow_fernet_key", 32) + "="


def connections(config: Config, secrets: Secrets, ports: dict[str, int]) -> dict[str, str]:
    """How Airflow reads the repositories that its bundles name."""
    repositories = {"lab_git": layout.PIPELINES, "lab_git_team_a": layout.TEAM_A}
    made = partial(gitserver.connection, config, secrets, ports)
    return {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps(made(repository))
        for name, repository in repositories.items()
    }


def database_file(config: Config) -> Path:
    return home(config) / "airflow.db"


def migrated(config: Config) -> bool:
    """Whether the tables are those of the installed version."""
    try:
        return mark(config).read_text("utf-8") == version("apache-airflow")
    except FileNotFoundError:
        return False


def mark(config: Config) -> Path:
    return home(config) / "migrated"


def clear_sqlite(config: Config) -> None:
    """There is no database file."""
    for path in home(config).glob("airflow.db*"):
        path.unlink()


def migrate(config: Config, service: Service, clear: Callable[[], None]) -> None:
    """Airflow's tables are of the installed version; `clear` is called where none ever were."""
    if not mark(config).exists():
        clear()
    run(
        [*airflow(), "db", "migrate"],
        timeout=MIGRATE_SECONDS,
        fix="lab down --purge, then lab up",
        env=environment_of(config, service),
    )
    write_private(mark(config), version("apache-airflow"))


def write_steps_environment(config: Config, variables: dict[str, str]) -> None:
    """What a step sees, in a file that only the lab's owner reads. It is all that a step sees."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    fixed = {
        "PATH": path,
        "HOME": str(config.shared),  # no ~/.aws, no ~/.gitconfig
        "SHARED_DIR": str(config.shared),
        "TMPDIR": str(temporary(config)),
    }
    write_private(steps_file(config), json.dumps({**fixed, **variables}, indent=1))


def steps_environment(config: Config) -> dict[str, str]:
    """What a step sees, as it was written for Airflow."""
    known: dict[str, str] = json.loads(steps_file(config).read_text("utf-8"))
    return known


def healthy(port: int, name: str) -> None:
    """Raises NotYet until the api-server says that the component is healthy."""
    reply = requests.get(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=10)
    if reply.status_code != 200:
        raise NotYet(f"the api-server answers {reply.status_code}")
    key = name.removeprefix("airflow-").replace("-", "_")
    status = (reply.json().get(key) or {"status": "unknown"})["status"]
    if key != "api_server" and status != "healthy":
        raise NotYet(f"{name} is {status}")


def warm_up(port: int) -> None:
    """The api-server has built the API that tasks talk to: its first call takes seconds."""
    requests.get(f"http://127.0.0.1:{port}/execution/health/ping", timeout=60)
