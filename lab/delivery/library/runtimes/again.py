"""The steps that a task runs again: those before it in the run's workspace.

    A retry of a step that is not `repeatable`    what it left may be half a change: the pulls
        start the workspace afresh, and the steps before it run again.
    A publish that was overtaken    somebody published meanwhile: the steps before it run again on
        the newer version. It does that itself where they need no other image.

Steps that Airflow skipped in this run are not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from dataset_steps.contract import AGAIN, HAVE_RUN
from runtimes import PUBLISH, PULL, WORK, Step

if TYPE_CHECKING:
    from airflow.sdk import Context

AFRESH = "--again"  # of `pull`: discard all that is in the workspace first
NEVER_RAN = {"skipped", "upstream_failed", "removed"}


def list_before(task: Any, context: Context) -> list[Any]:
    """Return the pulls and the steps before a task, in the DAG's order.

    Raise AirflowFailException when one of the tasks between them is no step: only Airflow runs it.
    """
    found = [one for one in list_between(task, context) if not one.inherits_from_empty_operator]
    if strange := [one.task_id for one in found if step_of(one) is None]:
        raise AirflowFailException(
            f"{task.task_id} has to run the steps before it again, and {', '.join(strange)} is no "
            "step: nothing but a step runs again in a run's workspace. Make it one, or move it "
            "before the pull; this run changed nothing: start another one"
        )
    return found


def list_between(task: Any, context: Context) -> list[Any]:
    """Return the pulls before a task and all that lies between, in the DAG's order.

    What Airflow skipped in this run is left out.
    """
    above = task.get_flat_relative_ids(upstream=True)
    ordered = [one for one in context["dag"].topological_sort() if one.task_id in above]
    pulls = [one for one in ordered if has_role(one, PULL)]
    inside = {one.task_id for one in pulls}.union(*(one.get_flat_relative_ids() for one in pulls))
    states = read_states(context)
    return [
        one for one in ordered if one.task_id in inside and states.get(one.task_id) not in NEVER_RAN
    ]


def read_states(context: Context) -> dict[str, str | None]:
    """Return the state of each task of this run, by the task's id."""
    ti = context["ti"]
    found: dict[str, dict[str, str | None]] = ti.get_task_states(
        dag_id=ti.dag_id, run_ids=[ti.run_id]
    )
    return found.get(ti.run_id, {})


def step_of(task: Any) -> Step | None:
    """Return the step that a task runs, or None when it is another kind of task."""
    return getattr(task, "step", None)


def has_role(task: Any, role: str) -> bool:
    step = step_of(task)
    return step is not None and step.role == role


def has_workspace(task: Any) -> bool:
    """Return whether a pull comes before the task, so that the run has a workspace."""
    return any(has_role(one, PULL) for one in task.get_flat_relatives(upstream=True))


# --- A retry of a step ----------------------------------------------------------------------------


def list_first(task: Any, context: Context) -> list[Any]:
    """Return what has to run before this attempt of a step, as tasks that are ready to run.

    Before a first attempt that is nothing, nor before steps that find their workspace themselves.
    A repeatable step needs the workspace, which may have been removed since; any other one needs
    it as it was. Raise AirflowFailException when it can't be had so.
    """
    step: Step = task.step
    is_first = context["ti"].try_number == 1
    if is_first or step.role != WORK or (step.repeatable and step.is_the_kit_s):
        return []
    if step.repeatable:
        pulls = [one for one in list_between(task, context) if has_role(one, PULL)]
        return [render(one, context) for one in pulls]
    before = [render(one, context) for one in list_before(task, context)]
    if before:
        refuse_neighbours(task, context)
        before[0].argv = [*before[0].argv, AFRESH]
    return before


def refuse_neighbours(task: Any, context: Context) -> None:
    """Raise AirflowFailException when other steps work in the workspace beside this one.

    To start afresh would undo theirs, and nothing would run them again.
    """
    near = {task.task_id, *task.get_flat_relative_ids()}.union(
        task.get_flat_relative_ids(upstream=True)
    )
    states = read_states(context)
    beside = [
        one.task_id
        for one in context["dag"].tasks
        if step_of(one) and one.task_id not in near and states.get(one.task_id) not in NEVER_RAN
    ]
    if beside:
        raise AirflowFailException(
            f"{task.task_id} may have left half a change, and can't start afresh beside "
            f"{', '.join(sorted(beside))}, in the same workspace: let them run one after another, "
            f"or write {task.task_id} so that it can run again on what it left, and say "
            "`repeatable=True`"
        )


def render(task: Any, context: Context) -> Any:
    """Return a copy of another task of the DAG, rendered for this run."""
    copy = task.prepare_for_execution()
    copy.render_template_fields(context)
    return copy


# --- A publish that was overtaken -----------------------------------------------------------------


def describe_steps(
    publish: Any, context: Context, is_of_its_image: Callable[[Step], bool]
) -> str | None:
    """Return the steps that `publish` may run again itself, as JSON.

    None when it may not run any, when one needs another image, or when a task among them is none.
    """
    if publish.step.role != PUBLISH or not publish.step.reruns:
        return None
    between = [
        one for one in list_between(publish, context) if not one.inherits_from_empty_operator
    ]
    steps = [step for one in between if (step := step_of(one))]
    if len(steps) < len(between) or not all(
        is_of_its_image(step) for step in steps if step.role == WORK
    ):
        return None
    return json.dumps(
        [
            {"argv": list(one.argv), "variables": dict(one.variables)}
            for one in list_steps(between, context)
        ]
    )


def list_steps(before: Iterable[Any], context: Context) -> list[Any]:
    """Return those tasks that are steps and no pulls, ready to run."""
    return [render(one, context) for one in before if has_role(one, WORK)]


def run_until_published(
    task: Any,
    context: Context,
    is_of_its_image: Callable[[Step], bool],
    run: Callable[[Mapping[str, str]], bool],
    run_other: Callable[[Any], object],
) -> None:
    """Run a task's own step; when it was overtaken, run those before it again, and it once more.

    `run` takes variables for the step, and returns whether it ended with success, or was overtaken;
    `run_other` runs another step of the DAG within this task.
    """
    steps = describe_steps(task, context, is_of_its_image)
    more = {} if steps is None else {AGAIN: steps}
    while not run(more):
        print("Somebody published meanwhile: the steps before this one run again", flush=True)
        for one in list_steps(list_before(task, context), context):
            run_other(one)
        more = {HAVE_RUN: "true"}
