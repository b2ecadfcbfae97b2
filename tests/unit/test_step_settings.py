"""A step's environment: what it reads, and which values it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_steps.__main__ import main
from dataset_steps.errors import StepError
from dataset_steps.settings import Settings

ENV = {
    "GIT_URL": "http://127.0.0.1:1/lab/datasets.git",
    "GIT_SYNC_USERNAME": "steps",
    "GIT_SYNC_PASSWORD": "c4nary-of-git",
    "S3_BUCKET": "lab-datasets",
    "DATASET_PATH": "datasets/employees.csv",
    "SHARED_DIR": "/shared",
    "DAG_ID": "dataset_pipeline",
    "RUN_ID": "manual__2026-01-01T00:00:00+00:00",
    "DAG_VERSION": "0123abc",
}
NEEDED = sorted(ENV.keys() - {"DAG_VERSION"})


def test_a_whole_environment() -> None:
    assert Settings.from_environment(ENV) == Settings(
        git_url=ENV["GIT_URL"],
        bucket="lab-datasets",
        dataset_path="datasets/employees.csv",
        shared=Path("/shared"),
        dag_id="dataset_pipeline",
        run_id=ENV["RUN_ID"],
        dag_version="0123abc",
    )


def test_credentials_are_no_settings() -> None:
    assert ENV["GIT_SYNC_PASSWORD"] not in repr(Settings.from_environment(ENV))


@pytest.mark.parametrize("value", [None, ""])
def test_the_version_may_be_absent(value: str | None) -> None:
    """In a bundle without versions Airflow gives none."""
    env = {name: text for name, text in (ENV | {"DAG_VERSION": value}).items() if text is not None}
    assert Settings.from_environment(env).dag_version == "unversioned"


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    env = {key: text for key, text in (ENV | {name: value}).items() if text is not None}
    with pytest.raises(StepError, match=f"environment lacks {name}$") as refusal:
        Settings.from_environment(env)
    assert refusal.value.exit_code == 65


def test_all_missing_variables_are_named() -> None:
    with pytest.raises(StepError) as refusal:
        Settings.from_environment({})
    assert all(name in str(refusal.value) for name in NEEDED)


@pytest.mark.parametrize("name", ["GIT_URL", "S3_BUCKET", "DATASET_PATH", "SHARED_DIR"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "\x1b[2J", "a\x7f", "\n"])
def test_control_characters_are_refused(name: str, value: str) -> None:
    with pytest.raises(StepError, match=name):
        Settings.from_environment(ENV | {name: value})


@pytest.mark.parametrize("name", ["DAG_ID", "RUN_ID", "DAG_VERSION"])
@pytest.mark.parametrize("value", ["a\n\nRun-Id: other", "a\rb", "a\x1fb", " a", "a ", " ", "\t"])
def test_what_would_be_another_trailer_is_refused(name: str, value: str) -> None:
    with pytest.raises(StepError, match=name):
        Settings.from_environment(ENV | {name: value})


@pytest.mark.parametrize("run_id", ["a", "a b", "größe", "a: b", "x" * 250, "'\"$(id)`"])
def test_other_names_of_runs_are_taken(run_id: str) -> None:
    assert Settings.from_environment(ENV | {"RUN_ID": run_id}).run_id == run_id


@pytest.mark.parametrize(
    "path",
    [
        "../data.csv",
        "a/../../data.csv",
        "a/..",
        "/data.csv",
        "//data.csv",
        ".",
        ".git/config",
        ".dvc/config",
        "./.git/hooks/pre-push",
        ".git",
        ".dvc",
    ],
)
def test_a_dataset_must_be_inside_the_repository(path: str) -> None:
    with pytest.raises(StepError, match="DATASET_PATH"):
        Settings.from_environment(ENV | {"DATASET_PATH": path})


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("data.csv", "data.csv"),
        ("./data.csv", "data.csv"),
        ("a//b/data.csv", "a/b/data.csv"),
        ("größe/my data.csv", "größe/my data.csv"),
        ("a..b/.hidden.csv", "a..b/.hidden.csv"),
    ],
)
def test_paths_inside_the_repository(path: str, same: str) -> None:
    assert Settings.from_environment(ENV | {"DATASET_PATH": path}).dataset_path == same


def test_the_command_exits_with_the_error_s_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ENV:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as end:
        main(["pull", "dataset"])
    assert end.value.code == 65
    said = capsys.readouterr()
    assert said.err.startswith("error: the step's environment lacks GIT_URL, S3_BUCKET")
    assert not said.out


@pytest.mark.parametrize(
    "argv", [[], ["fetch"], ["import"], ["pull"], ["pull", "dataset", "--force"], ["publish"]]
)
def test_other_arguments_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2


def test_a_step_knows_the_declared_ones_and_the_lab_s_own() -> None:
    known = Settings.from_environment(ENV | {"DATA_SETS": '{"orders": "data/orders"}'})
    assert known.data_sets == {"dataset": ENV["DATASET_PATH"], "orders": "data/orders"}


@pytest.mark.parametrize("text", ["[", "[1]", "1"])
def test_a_variable_that_holds_no_data_sets(text: str) -> None:
    with pytest.raises(StepError, match="DATA_SETS holds no data sets"):
        Settings.from_environment(ENV | {"DATA_SETS": text})
