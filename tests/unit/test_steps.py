"""What a DAG says of its data: what can't be right is an error where the DAG is parsed."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from dataset_steps.contract import DataSetError
from tests.support.dag_tasks import dags_on_path

TREE = Path(__file__).resolve().parents[2]
DECLARED = '[data.orders]\npath = "data/orders"\n[data.report]\npath = "out/report.pdf"\n'


@pytest.fixture(scope="module", autouse=True)
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the DAGs on the path, as for the DAG processor, with a new AIRFLOW_HOME."""
    with dags_on_path(tmp_path_factory, STEP_RUNTIME="process"):
        yield


def load_steps(folder: Path, declared: str | None) -> dict[str, Any]:
    """Load a copy of steps.py that has this file of data sets beside it, or none."""
    shutil.copy(TREE / "dags" / "steps.py", folder)
    if declared is not None:
        (folder / "data.toml").write_text(declared, "utf-8")
    return runpy.run_path(str(folder / "steps.py"))


@pytest.fixture
def steps(tmp_path: Path) -> dict[str, Any]:
    return load_steps(tmp_path, DECLARED)


def test_the_data_sets_are_those_beside_the_dags(steps: dict[str, Any], tmp_path: Path) -> None:
    assert steps["DATA_SETS"] == {"orders": "data/orders", "report": "out/report.pdf"}
    assert steps["pull"]("orders", "dataset").step.data_sets == steps["DATA_SETS"]
    (tmp_path / "data.toml").unlink()
    assert load_steps(tmp_path, None)["DATA_SETS"] == {}


@pytest.mark.parametrize(
    ("declared", "error"),
    [
        ('[data.one]\npath = "a"\n[data.two]\npath = "a"\n', "one and two are both at a"),
        ('[data.one]\npath = "a"\n[data.two]\npath = "a/b"\n', "are inside each other: a/b"),
        ('[data.Orders]\npath = "a"\n', "'Orders' is no name of a data set"),
        ('[data.one]\npath = "../a"\n', "is not a path inside the repository"),
        ("[data.one]\n", r"\[data.one\] has `path"),
    ],
)
def test_data_sets_that_can_not_be_right_are_no_dag(
    tmp_path: Path, declared: str, error: str
) -> None:
    with pytest.raises(DataSetError, match=error) as caught:
        load_steps(tmp_path, declared)
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
