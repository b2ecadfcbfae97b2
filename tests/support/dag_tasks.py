"""Tasks of a DAG as Airflow's runner sees them: rendered, with the context of one attempt."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.config import KIT as CHECKOUT
from lab.config import PLUGINS, Config
from lab.delivery import bundle

RUN_ID = "manual__1"
KIT = "dataset-steps"


@cache
def delivered_dags() -> Path:
    """Return the folder of DAGs as Airflow gets it, written once in this process."""
    top = Path(tempfile.mkdtemp(prefix="lab-dags-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    bundle.write_bundle(Config(home=top / "home"), top / "dags")
    return top / "dags"


@contextmanager
def dags_on_path(factory: pytest.TempPathFactory, *more: str, **variables: str) -> Iterator[None]:
    """Put the DAGs (and more folders) on the path, as for the DAG processor, in a new AIRFLOW_HOME.

    `variables` are set in the environment meanwhile.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(factory.mktemp("airflow")))
        for name, value in variables.items():
            patch.setenv(name, value)
        for folder in (delivered_dags(), *(CHECKOUT / name for name in more)):
            patch.syspath_prepend(str(folder))
        yield


def with_plugins(factory: pytest.TempPathFactory, **variables: str) -> AbstractContextManager[None]:
    """Put the DAGs and Airflow's plugins on the path, as `dags_on_path` does."""
    return dags_on_path(factory, PLUGINS.as_posix(), **variables)


def run_parser(program: str, *folders: Path, home: Path, runtime: str) -> Any:
    """Run a program that parses folders, as the lab sets Airflow; return the JSON it prints last.

    `home` gets Airflow's own files. `runtime` says how steps run: `process` or `pod`.
    """
    env = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor,KubernetesExecutor",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / PLUGINS),
        "STEP_RUNTIME": runtime,
    }
    command = [sys.executable, "-c", program, *map(str, folders)]
    done = subprocess.run(
        command, env=env, cwd=home, capture_output=True, text=True, timeout=300, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def make_context(
    dag: Any,
    task_id: str,
    *,
    attempt: int = 1,
    states: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Any:
    """Return the context of a task's attempt. Its other tasks have succeeded but for `states`."""
    known = {one.task_id: "success" for one in dag.tasks} | dict(states or {})
    ti = SimpleNamespace(
        dag_id=dag.dag_id,
        run_id=RUN_ID,
        task_id=task_id,
        map_index=-1,
        try_number=attempt,
        bundle_instance=SimpleNamespace(version="0123abc"),
        get_task_states=lambda **asked: dict.fromkeys(asked["run_ids"], known),
        xcom_push=lambda **_: None,
    )
    return {"dag": dag, "ti": ti, "run_id": RUN_ID, "params": dict(params or {})}


def render_task(context: Any) -> Any:
    """Return the task of the context as the runner executes it."""
    task = context["dag"].get_task(context["ti"].task_id).prepare_for_execution()
    task.render_template_fields(context)
    context["task"] = task
    return task
