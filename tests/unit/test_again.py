"""Which steps run again within a task, in which order, and when none may."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from dataset_steps import again as publishing
from tests.support.dag_tasks import KIT, dags_on_path, make_context, render_task


@pytest.fixture(scope="module", autouse=True)
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the DAGs on the path, as for the DAG processor, with a new AIRFLOW_HOME."""
    with dags_on_path(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def again(dags: None) -> ModuleType:
    return importlib.import_module("runtimes.again")


@pytest.fixture
def make(dags: None) -> Callable[..., Any]:
    """Return a function that makes the task of a step, with a role and more of `Step`."""
    runtimes, process = (importlib.import_module(f"runtimes{m}") for m in ("", ".process"))

    def make_task(task_id: str, *argv: str, **how: Any) -> Any:
        variables = {"RUN_ID": "{{ run_id }}", **how.pop("variables", {})}
        return process.task(task_id, runtimes.Step(argv or (task_id,), variables, **how))

    return make_task


@pytest.fixture
def dag(make: Callable[..., Any]) -> Any:
    """Return a DAG: a task, a pull, two steps and a publish, one after another."""

    @task
    def look() -> None: ...

    with DAG("some_dag") as dag:
        (
            look()
            >> make("pull", KIT, "pull", "orders", role="pull")
            >> make("clean", "my-steps", "{{ params.how }}", variables={"HOW": "{{ params.how }}"})
            >> make("join", "my-steps", "join")
            >> make("publish", KIT, "publish", "orders", role="publish", reruns=True)
        )
    return dag


def list_first(again: ModuleType, dag: Any, task_id: str, **how: Any) -> list[list[str]]:
    """Return the command of each step that runs before this attempt."""
    context = make_context(dag, task_id, params={"how": "well"}, **how)
    return [one.argv for one in again.list_first(render_task(context), context)]


# --- A retry --------------------------------------------------------------------------------------


def test_a_first_attempt_runs_nothing_but_its_step(again: ModuleType, dag: Any) -> None:
    assert list_first(again, dag, "join") == []


def test_a_retry_starts_afresh_and_runs_what_came_before(again: ModuleType, dag: Any) -> None:
    assert list_first(again, dag, "join", attempt=2) == [
        [KIT, "pull", "orders", "--again"],
        ["my-steps", "well"],
    ]
    assert list_first(again, dag, "clean", attempt=3) == [[KIT, "pull", "orders", "--again"]]


@pytest.mark.parametrize("task_id", ["pull", "publish"])
def test_the_kit_s_own_steps_go_on_where_they_were(
    again: ModuleType, dag: Any, task_id: str
) -> None:
    assert list_first(again, dag, task_id, attempt=2) == []


def test_only_the_first_pull_starts_afresh(again: ModuleType, make: Callable[..., Any]) -> None:
    """The one after it would undo what it pulled."""
    with DAG("some_dag") as dag:
        pulls = [make(name, KIT, "pull", name, role="pull") for name in ("one", "two")]
        pulls >> make("join")
    (first, second) = list_first(again, dag, "join", attempt=2)
    assert (first[3:], second[3:]) == (["--again"], [])


def test_a_repeatable_step_needs_no_more_than_its_workspace(
    again: ModuleType, make: Callable[..., Any]
) -> None:
    with DAG("some_dag") as dag:
        start = make("pull", KIT, "pull", "orders", role="pull")
        start >> make("clean") >> make("count", repeatable=True)
        start >> make("modify", KIT, "modify", repeatable=True)
    assert list_first(again, dag, "count", attempt=2) == [[KIT, "pull", "orders"]]
    assert list_first(again, dag, "modify", attempt=2) == []


def test_a_step_without_a_pull_is_just_tried_again(
    again: ModuleType, make: Callable[..., Any]
) -> None:
    with DAG("some_dag") as dag:
        make("fetch") >> make("pull", KIT, "pull", "orders", role="pull")
    assert list_first(again, dag, "fetch", attempt=2) == []


def test_steps_side_by_side_can_not_start_afresh(
    again: ModuleType, make: Callable[..., Any]
) -> None:
    """The other one's work would be undone, and nobody would do it again."""
    with DAG("some_dag") as dag:
        start = make("pull", KIT, "pull", "orders", role="pull")
        start >> [make("clean"), make("count")] >> make("join")
    with pytest.raises(AirflowFailException, match="can't start afresh beside count"):
        list_first(again, dag, "clean", attempt=2)
    assert len(list_first(again, dag, "clean", attempt=2, states={"count": "skipped"})) == 1
    assert len(list_first(again, dag, "join", attempt=2)) == 3


# --- What lies between ----------------------------------------------------------------------------


def list_before(again: ModuleType, dag: Any, task_id: str, **how: Any) -> list[str]:
    context = make_context(dag, task_id, **how)
    return [one.task_id for one in again.list_before(render_task(context), context)]


def test_what_comes_before_the_pull_is_not_run_again(again: ModuleType, dag: Any) -> None:
    assert list_before(again, dag, "publish") == ["pull", "clean", "join"]


def test_what_airflow_skipped_is_not_run_again(again: ModuleType, dag: Any) -> None:
    assert list_before(again, dag, "publish", states={"clean": "skipped"}) == ["pull", "join"]


def test_a_task_that_is_no_step_can_not_run_again(
    again: ModuleType, make: Callable[..., Any]
) -> None:
    @task
    def tidy() -> None: ...

    with DAG("some_dag") as dag:
        start = make("pull", KIT, "pull", "orders", role="pull")
        wait = EmptyOperator(task_id="wait")
        start >> tidy() >> wait >> make("publish", KIT, "publish", role="publish", reruns=True)
    context = make_context(dag, "publish")
    publish = render_task(context)
    with pytest.raises(AirflowFailException, match="tidy is no step"):
        again.list_before(publish, context)
    assert again.describe_steps(publish, context, lambda _: True) is None
    skipped = make_context(dag, "publish", states={"tidy": "skipped"})
    assert [one.task_id for one in again.list_before(publish, skipped)] == ["pull"]
    assert again.describe_steps(publish, skipped, lambda _: True) == "[]"


# --- What publish is told -------------------------------------------------------------------------


def describe(again: ModuleType, dag: Any, image: bool = True) -> str | None:
    context = make_context(dag, "publish", params={"how": "$(HOME) \"{{ ti }}'"})
    found: str | None = again.describe_steps(render_task(context), context, lambda _: image)
    return found


def test_publish_is_told_which_steps_it_may_run_again(again: ModuleType, dag: Any) -> None:
    """They are rendered for this run; what a param holds is not rendered a second time."""
    how = "$(HOME) \"{{ ti }}'"
    told = describe(again, dag)
    assert json.loads(told or "") == [
        {"argv": ["my-steps", how], "variables": {"RUN_ID": "manual__1", "HOW": how}},
        {"argv": ["my-steps", "join"], "variables": {"RUN_ID": "manual__1"}},
    ]
    steps = publishing.parse_steps(told)
    assert steps
    assert [step.argv for step in steps] == [("my-steps", how), ("my-steps", "join")]
    assert dag.get_task("clean").argv == ["my-steps", "{{ params.how }}"], "the DAG's stays"


def test_publish_is_not_told_of_steps_of_another_image(again: ModuleType, dag: Any) -> None:
    assert describe(again, dag, image=False) is None


def test_publish_that_may_fail_runs_no_step_again(
    again: ModuleType, make: Callable[..., Any]
) -> None:
    with DAG("some_dag") as dag:
        start = make("pull", KIT, "pull", "orders", role="pull")
        start >> make("clean") >> make("publish", KIT, "publish", "orders", role="publish")
    assert describe(again, dag) is None
