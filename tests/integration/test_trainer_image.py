"""The trainer image as a model's pods run it: the worker's image, and what a training needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.dataset import employees
from tests.support.containers import LOOPBACK, Worker, find_files, inspect_container
from tests.support.needs import ensure_image
from tests.support.renderings import locked_images
from tests.support.training import (
    RECORDS,
    STEPS,
    first_records,
    list_training_runs,
    new_training,
    read_published,
)

if TYPE_CHECKING:
    from tests.support.stores import Project

pytestmark = pytest.mark.kind

USER = 10001


@pytest.fixture(scope="module")
def image() -> str:
    """Return the locked image, built from this checkout where its sources are here."""
    return ensure_image("trainer")


@pytest.fixture(scope="module")
def volume(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder that containers may write to; they also remove what they have left there."""
    folder = tmp_path_factory.mktemp("volume")
    folder.chmod(0o777)
    yield folder
    Worker(image, folder).run_to_end("/shared", "-mindepth", "2", "-delete", entrypoint="find")


def test_a_run_in_containers_publishes_a_model(
    image: str, volume: Path, project: Project, tmp_path: Path
) -> None:
    """Each step has the memory that the smaller of the two templates gives it."""
    employees.write_employees(tmp_path / "all.csv")
    project.replace_dataset(first_records((tmp_path / "all.csv").read_bytes(), RECORDS))
    project = replace(project, shared=volume)
    env = {**project.environment("in-containers"), **new_training(project).env}
    env = {**env, "SHARED_DIR": "/shared", "RUN_ID": "in-containers"}
    given = {
        k: v.replace("127.0.0.1", LOOPBACK) for k, v in env.items() if k not in {"PATH", "HOME"}
    }
    for command, *words in STEPS.values():
        done = Worker(image, volume).run_to_end(*words, entrypoint=command, env=given)
        assert done.code == 0, done
        assert not project.stores.find_leaks(done.output)
    assert list_training_runs(project) == ["in-containers"]
    assert read_published(project).metrics["roc_auc"] > 0.7
    assert project.list_leftovers() == []


def test_it_is_the_worker_s_image_with_another_command(image: str) -> None:
    worker, trainer = (inspect_container(name) for name in (locked_images()["worker"].name, image))
    assert trainer["Config"]["Entrypoint"] == ["model-steps"]
    assert trainer["Config"]["User"] == worker["Config"]["User"] == f"{USER}:{USER}"
    layers = worker["RootFS"]["Layers"]
    assert trainer["RootFS"]["Layers"][: len(layers)] == layers


def test_what_the_worker_has_is_not_there_a_second_time(image: str) -> None:
    found = find_files(image, 0, "-path '/opt/*.dist-info'")
    worker, trainer = (
        {Path(path).name.partition("-")[0] for path in found if path.startswith(f"/opt/{folder}/")}
        for folder in ("worker", "trainer")
    )
    assert {"boto3", "dataset_steps"} <= worker
    assert {"scikit_learn", "model_steps"} <= trainer
    assert not worker & trainer


def test_the_user_may_write_nowhere_and_nothing_of_the_build_is_left(image: str) -> None:
    writable = find_files(image, USER, "-writable", "-not", "-type", "l")
    assert writable <= {"/tmp", "/var/tmp", "/run/lock"}
    assert find_files(image, 0, "-path /src -o -path /wheels -o -path /opt/build") == set()
