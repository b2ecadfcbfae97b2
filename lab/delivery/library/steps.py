"""What a DAG says: `pull` data sets, `step` by step, and `publish` what has changed.

Each is a task that runs one command of one image, with the same argv on every runtime. STEP_RUNTIME
in Airflow's environment names the runtime, so no DAG has to know it. Data sets and images of one's
own are named in `lab.toml`. The kit delivers this module beside a project's DAGs.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, CronTriggerTimetable, Param

import runtimes
from dataset_steps.contract import FILE, read_declared
from runtimes import again

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

COMMAND = "dataset-steps"
TEMPLATE = "step"
ON_CONFLICT = RERUN, _ = "rerun", "fail"

DECLARED = read_declared(Path(__file__).with_name(FILE))

# Rendered by Airflow for each run. No dates (a run started by the API has none), no conf.
RUN = {
    "RUN_ID": "{{ run_id }}",
    "DAG_ID": "{{ dag.dag_id }}",
    "DAG_VERSION": "{{ ti.bundle_instance.version or '' }}",
}

DEFAULTS: dict[str, Any] = {
    # A step may be killed at any moment, and finishes its work when it is retried.
    "retries": 10,
    "retry_delay": timedelta(seconds=3),
    "execution_timeout": timedelta(hours=1),
    # Runs that are further along go first: they publish before others, which then start from a
    # newer base.
    "weight_rule": "upstream",
}

# The param of a DAG whose steps' pods and workspaces are kept; workspaces for a week at most.
KEEP_HOURS = Param(
    24,
    type="number",
    minimum=0,
    maximum=7 * 24,
    description="How many hours the steps' pods and workspaces are kept for inspection",
)

runtime = importlib.import_module(f"runtimes.{os.environ['STEP_RUNTIME']}")

# A push to the datasets, reported to Airflow by POST /lab/push: a schedule of a DAG.
PUSHED_DATASETS = Asset(name="push:lab/datasets:main", uri="x-push://lab/datasets/main")

# For a TaskFlow task that gets a pod of its own where there are pods: `@task(**IN_A_POD)`.
IN_A_POD: dict[str, Any] = {"executor": runtime.EXECUTOR}


# Where Airflow keeps a bundle's files: at the branch's newest commit, or at the commit of one run.
PRODUCTION = re.compile(r"/production/(tracking_repo|versions/[0-9a-f]+)/dags$")
PREFIX = "production." if PRODUCTION.search(Path(__file__).parent.as_posix()) else ""


def named(dag_id: str) -> str:
    """Return the DAG's id in Airflow: as it is in staging, prefixed with `production.` there.

    Both branches hold the same files, and of two DAGs with one id Airflow keeps the one it saw
    last.
    """
    return f"{PREFIX}{dag_id}"


def clock(cron: str) -> CronTriggerTimetable:
    """Return a cron timetable in UTC. A new lab waits for the next time; it never catches up."""
    # The minute is for a time that passes while the DAG's file is being parsed again. With `False`,
    # Airflow would catch up on the last time within a tenth of the interval.
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(minutes=1))


def pull(
    *names: str,
    commit: str | None = None,
    optional: bool = False,
    keep: bool = False,
    task_id: str = "pull",
    **options: Any,
) -> BaseOperator:
    """Return the task that brings data sets into the run's workspace: the newest versions.

    `commit` is the one whose versions are pulled instead, templated by Airflow; a data set that is
    `optional` begins empty where it has no version yet. `keep` and `options` are those of `step`.
    Raise ValueError when no data set of that name is declared.
    """
    require_declared("pull", names)
    flag = ("--optional",) if optional else ()
    variables = {} if commit is None else {"DATA_COMMIT": commit}
    argv = (COMMAND, "pull", *names, *flag)
    return make_task(task_id, argv, variables, options, role=runtimes.PULL, keep=keep)


def step(
    task_id: str,
    command: str,
    *arguments: str,
    image: str | None = None,
    template: str = TEMPLATE,
    memory: str | None = None,
    keep: bool = False,
    repeatable: bool = False,
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> BaseOperator:
    """Return the task that runs `command` with these arguments in the run's workspace.

    `image` has the command where the template's image has not: the name of one of lab.toml's, which
    has a template of its own, or a reference to any other one; `template` names the PodTemplate of
    its pod; `memory` is its memory limit in Kubernetes' notation, where that is not lab.toml's or
    the template's;
    `keep` keeps the step's pod and workspace for inspection (the DAG has a param `keep_hours` and
    runs one at a time). A step that is `repeatable` may run again on what it has left itself; for
    any other one a retry starts afresh, from the pull on. `variables` are its own environment
    variables, beside those of the run; Airflow renders them and the arguments. `options` are the
    operator's.
    """
    which: dict[str, Any] = {"image": image, "template": template, "memory": memory}
    refuse_misspelled(image)
    if image and image in DECLARED.memory:  # the lab has made a PodTemplate of its name
        which = {"own": image, "template": image, "memory": memory or DECLARED.memory[image]}
    how: dict[str, Any] = {"keep": keep, "repeatable": repeatable}
    return make_task(task_id, (command, *arguments), variables or {}, options, **which, **how)


def refuse_misspelled(image: str | None) -> None:
    """Raise ValueError for what is no image of lab.toml's, but nearly the name of one."""
    near = difflib.get_close_matches(image or "", DECLARED.memory, n=1, cutoff=0.75)
    if near and image not in DECLARED.memory:
        raise ValueError(f"lab.toml declares no image {image!r}; is it {near[0]!r}?")


def publish(
    *names: str,
    files: Sequence[str] = (),
    metrics: Sequence[str] = (),
    result: str | None = None,
    message: str | None = None,
    on_conflict: str = RERUN,
    template: str = TEMPLATE,
    task_id: str = "publish",
    **options: Any,
) -> BaseOperator:
    """Return the task that publishes what has changed of these data sets, in one commit.

    `files` are small ones that git keeps itself, and so are `metrics`, which `dvc metrics` shows;
    `result` is a name in the bucket for the facts of the commit; `message` is what the commit says
    that was done. When somebody has published such a data set since the pull, the steps between
    run again ("rerun"), or the run fails ("fail"). `options` are the operator's.
    Raise ValueError for what can't be right.
    """
    require_declared("publish", names)
    if on_conflict not in ON_CONFLICT:
        raise ValueError(f"publish: on_conflict is {on_conflict!r}, not {' or '.join(ON_CONFLICT)}")
    argv = (
        *(COMMAND, "publish", *names),
        *(f"--file={path}" for path in files),
        *(f"--metrics={path}" for path in metrics),
        *([f"--result={result}"] if result is not None else []),
        *([f"--message={message}"] if message is not None else []),
        *([f"--on-conflict={on_conflict}"] if on_conflict != RERUN else []),
    )
    how: dict[str, Any] = {"role": runtimes.PUBLISH, "reruns": on_conflict == RERUN}
    task = make_task(task_id, argv, {}, options, template=template, repeatable=True, **how)
    refuse_second_publish(task)
    return task


def require_declared(function: str, names: Sequence[str]) -> None:
    """Raise ValueError unless each name is a data set's, and none is there twice."""
    known = (DECLARED.main, *DECLARED.paths)
    if not names:
        raise ValueError(f"{function}() names no data set: there are {', '.join(known)}")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{function}: no data set {unknown[0]!r} is declared: write [data.NAME] and its path "
            f"into lab.toml; there are {', '.join(known)}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{function}: a data set is named twice: {', '.join(names)}")


def refuse_second_publish(task: BaseOperator) -> None:
    """Raise ValueError when the task's DAG has another publish: a run makes one commit."""
    dag = task.get_dag()
    others = [one.task_id for one in (dag.tasks if dag else []) if one is not task]
    published = [name for name in others if again.has_role(dag.get_task(name), runtimes.PUBLISH)]
    if published:
        raise ValueError(
            f"{task.task_id}: {published[0]} publishes already, and a run makes one commit: "
            "name all data sets in one publish()"
        )


def make_task(
    task_id: str,
    argv: tuple[str, ...],
    variables: Mapping[str, str],
    options: Mapping[str, Any],
    **how: Any,
) -> BaseOperator:
    """Return the runtime's task of the step that `how` describes."""
    kept = {"KEEP_HOURS": runtimes.KEEP_HOURS} if how.get("keep") else {}
    known: dict[str, Any] = {"data_sets": DECLARED.paths, "main": DECLARED.main}
    one = runtimes.Step(argv, {**RUN, **kept, **variables}, **known, **how)
    task: BaseOperator = runtime.task(task_id, one, **options)
    return task
