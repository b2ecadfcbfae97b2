"""What a DAG says of its data: what can't be right is an error where the DAG is parsed."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from dataset_steps.contract import DataSetError
from lab.delivery import bundle
from tests.support.dag_tasks import dags_on_path

DECLARED: dict[str, Any] = {
    "main": "dataset",
    "data": {"dataset": "data.csv", "orders": "data/orders", "report": "out/report.pdf"},
    "images": {"clean": {"memory": "1Gi"}, "dbt": {"memory": None}},
}


@pytest.fixture(scope="module", autouse=True)
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the DAGs on the path, as for the DAG processor, with a new AIRFLOW_HOME."""
    with dags_on_path(tmp_path_factory, STEP_RUNTIME="process"):
        yield


def load_steps(folder: Path, **changed: Any) -> dict[str, Any]:
    """Load a copy of steps.py beside a file of what lab.toml declares."""
    shutil.copy(bundle.LIBRARY / "steps.py", folder)
    (folder / bundle.DECLARED).write_text(json.dumps({**DECLARED, **changed}), "utf-8")
    return runpy.run_path(str(folder / "steps.py"))


@pytest.fixture
def steps(tmp_path: Path) -> dict[str, Any]:
    return load_steps(tmp_path)


def test_the_data_sets_are_those_beside_the_dags(steps: dict[str, Any], tmp_path: Path) -> None:
    others = {"orders": "data/orders", "report": "out/report.pdf"}
    step = steps["pull"]("orders", "dataset").step
    assert (step.main, step.data_sets) == ("dataset", others)
    loaded = load_steps(tmp_path, main="report")
    assert loaded["pull"]("report").step.main == "report"
    (tmp_path / bundle.DECLARED).unlink()
    with pytest.raises(DataSetError, match=r"the kit writes it from lab\.toml"):
        runpy.run_path(str(tmp_path / "steps.py"))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"one": "a", "two": "a"}, "one and two are both at a"),
        ({"one": "a", "two": "a/b"}, "are inside each other: a/b"),
        ({"Orders": "a"}, "'Orders' is no name of a data set"),
        ({"one": "../a"}, "is not a path inside the repository"),
        ({"two": "a"}, "names 'one' as its main data set"),
        (["one"], "does not say what lab.toml declares"),
    ],
)
def test_data_sets_that_can_not_be_right_are_no_dag(
    tmp_path: Path, data: object, error: str
) -> None:
    with pytest.raises(DataSetError, match=error) as caught:
        load_steps(tmp_path, data=data, main="one")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", ["pull", "publish"])
@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((), "names no data set: there are dataset, orders, report"),
        (("order",), "no data set 'order' is declared: write"),
        (("orders", "orders"), "named twice"),
    ],
)
def test_names_that_can_not_be_right_are_no_dag(
    steps: dict[str, Any], function: str, names: tuple[str, ...], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        steps[function](*names)


def test_another_conflict_is_no_dag(steps: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="on_conflict is 'merge', not rerun or fail"):
        steps["publish"]("orders", on_conflict="merge")


def test_a_run_publishes_once(steps: dict[str, Any]) -> None:
    with DAG("some_dag"):
        steps["publish"]("orders")
        with pytest.raises(ValueError, match="publish publishes already"):
            steps["publish"]("report", task_id="another")


def test_memory_that_is_none_is_no_dag(steps: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'256MB' is no amount of memory"):
        steps["step"]("clean", "my-steps", memory="256MB")


def test_an_own_image_brings_its_template_and_its_memory(steps: dict[str, Any]) -> None:
    def read(**given: Any) -> tuple[str | None, ...]:
        step = steps["step"]("clean", "my-steps", **given).step
        return step.own, step.template, step.image, step.memory

    assert read(image="clean") == ("clean", "clean", None, "1Gi")
    assert read(image="clean", memory="2Gi") == ("clean", "clean", None, "2Gi")
    assert read(image="dbt") == ("dbt", "dbt", None, None)
    assert read(image="elsewhere/x:1", template="model") == (None, "model", "elsewhere/x:1", None)
    assert read() == (None, "step", None, None)
    assert read(image="alpine") == (None, "step", "alpine", None)
    with pytest.raises(ValueError, match="declares no image 'claen'; is it 'clean'"):
        read(image="claen")


def test_each_says_what_it_runs(steps: dict[str, Any]) -> None:
    pull = steps["pull"]("orders", "dataset", commit="{{ params.commit }}", keep=True)
    assert pull.argv == ["dataset-steps", "pull", "orders", "dataset"]
    assert pull.variables == {
        **steps["RUN"],
        "DATA_COMMIT": "{{ params.commit }}",
        "KEEP_HOURS": "{{ params.keep_hours }}",
    }
    assert steps["pull"]("orders", optional=True).argv[2:] == ["orders", "--optional"]
    step = steps["step"]("clean", "my-steps", "clean", "-v", variables={"HOW": "well"})
    assert (step.task_id, step.argv) == ("clean", ["my-steps", "clean", "-v"])
    assert step.variables == {**steps["RUN"], "HOW": "well"}
    given: dict[str, Any] = {"files": ["-a.md"], "metrics": ["m.json"], "result": "r.json"}
    publish = steps["publish"]("orders", **given, message="clean", on_conflict="fail")
    assert publish.argv[2:] == [
        *("orders", "--file=-a.md", "--metrics=m.json"),
        *("--result=r.json", "--message=clean", "--on-conflict=fail"),
    ]
    assert not publish.step.reruns
    assert steps["publish"]("orders").step.reruns


def test_the_publishing_step_understands_what_it_is_told(steps: dict[str, Any]) -> None:
    from dataset_steps.__main__ import make_parser

    given: dict[str, Any] = {"files": ["-a.md"], "metrics": ["m.json"], "result": "r.json"}
    task = steps["publish"]("orders", "report", **given, message="a b", on_conflict="fail")
    found = make_parser().parse_args(task.argv[1:])
    assert (found.names, found.file, found.metrics) == (["orders", "report"], ["-a.md"], ["m.json"])
    assert (found.result, found.message, found.on_conflict) == ("r.json", "a b", "fail")
    found = make_parser().parse_args([*steps["pull"]("orders", optional=True).argv[1:], "--again"])
    assert (found.names, found.optional, found.again) == (["orders"], True, True)
