"""What a promotion takes of a project that is not the kit's checkout: images, files, its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eks import attestation, difference, environment, plan, registry
from eks.difference import Difference
from lab.cluster import images
from lab.config import Config
from lab.delivery import bundle
from tests.support.own_project import install_kit, make_project

IMAGE = "template.spec.containers[base].image"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_project(tmp_path / "churn")


def test_the_registry_gets_the_project_s_own_images_too(config: Config) -> None:
    staging = environment.load("staging", config.root)
    rows = {row.name: row.what for row in registry.plan(staging, config)}
    assert rows.keys() == {f"churn-staging/{key}" for key in ("worker", "trainer", "steps")}
    steps = images.read_lock(config)["steps"].name
    assert rows["churn-staging/steps"] == f"{steps}; tags are never moved, scanned"


def test_a_plan_shows_images_bucket_associations_and_the_data_set(config: Config) -> None:
    staging = environment.load("staging", config.root)
    rows = [f"{row.name} {row.what}" for row in plan.list_resources(staging, config)]
    for text in (
        "churn/steps:",
        staging.bucket,
        "Pod Identity of airflow-step",
        "datasets.git orders",
    ):
        assert [row for row in rows if text in row], text


# --- Differences that are allowed -----------------------------------------------------------------


def is_allowed(config: Config, template: str, kind: str, eks: str) -> bool:
    project = config.project
    path = config.kit / difference.PROMOTION
    allowed = difference.read_allowed(path, project.name, project.images)
    row = Difference(f"PodTemplate/airflow/{template}", IMAGE, kind, eks)
    return difference.judge_differences([row], allowed)[0][1] is not None


def test_an_own_image_may_be_named_by_its_registry_in_its_own_template_only(
    config: Config,
) -> None:
    pushed = "1.dkr.example/churn-staging/steps@sha256:0"
    assert is_allowed(config, "steps", "churn/steps:0", pushed)
    assert not is_allowed(config, "step", "churn/steps:0", pushed)
    assert not is_allowed(config, "steps", "other/steps:0", pushed)
    assert not is_allowed(config, "steps", "churn/steps:0", "1.dkr.example/churn-staging/worker:0")
    assert not is_allowed(Config(home=config.home), "steps", "churn/steps:0", pushed)


# --- The attestation ------------------------------------------------------------------------------


def test_the_project_s_files_are_subjects_by_their_paths_in_it(config: Config) -> None:
    found = attestation.digest_files(config).keys()
    own = {"lab.toml", "dags/churn_pipeline.py", "images/steps/churn_steps.py"}
    assert {name for name in found if not name.startswith("kit/")} == own
    assert {
        *("kit/images/own/Dockerfile", "kit/images/worker/build-requirements.txt"),
        *("kit/lab/delivery/library/steps.py", "kit/manifests/base/kustomization.yaml"),
    } <= found
    assert "kit/dags/dataset_pipeline.py" not in found, "samples are delivered when asked for"


def test_a_change_of_an_own_image_ends_the_promotion(config: Config) -> None:
    before = attestation.digest_files(config)
    (config.root / "images" / "steps" / "churn_steps.py").write_text("print('other')\n")
    (config.root / "README.md").write_text("x")
    assert attestation.compare_digests(before, attestation.digest_files(config)) == [
        "images/steps/churn_steps.py was changed"
    ]


def test_where_the_kit_is_installed_makes_no_difference(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session of nox has an environment of its own, inside the project."""
    found = []
    for session in ("e2e", "eks"):
        packages = config.root / ".nox" / session / "lib" / "site-packages"
        kit = install_kit(packages / "lab" / "kit")
        library = packages / "lab" / "delivery" / "library"
        library.mkdir(parents=True)
        (library / "steps.py").write_bytes((bundle.LIBRARY / "steps.py").read_bytes())
        monkeypatch.setattr(bundle, "LIBRARY", library)
        monkeypatch.setattr(attestation, "PACKAGE", packages / "lab")
        found.append(attestation.digest_files(replace(config, kit=kit)))
    assert found[0] == found[1]
    assert {"kit/images/lock.toml", "kit/lab/delivery/library/steps.py"} <= found[0].keys()
    assert (
        found[0]["kit/images/lock.toml"] == attestation.digest_files(config)["kit/images/lock.toml"]
    )
