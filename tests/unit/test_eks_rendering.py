"""The chart's values for an environment, as far as they can be tested without a tool."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from eks import environment, rendering
from eks.environment import Environment
from lab.config import Config
from tests.support import attested


def read_pod_annotation(
    chosen: Environment, folder: Path, tree: Config | None = None, secrets: str = ""
) -> str:
    """Render the values and return the annotation of the environment's pods."""
    config = tree or Config(home=folder)
    file = rendering.write_values_files(chosen, config, folder, secrets)[-1]
    found = json.loads(file.read_text("utf-8"))
    assert found["airflowPodAnnotations"] == found["pgbouncer"]["podAnnotations"]
    (value,) = found["airflowPodAnnotations"].values()
    return str(value)


def test_pods_restart_when_what_they_read_as_they_start_changes(tmp_path: Path) -> None:
    staging = environment.load("staging")
    settings = {"rds_host": "a", "rds_user": "b", "rds_database": "c", "vpc_cidr": "10.0.0.0/16"}
    with_rds = replace(staging, options=("rds",), settings=settings)
    elsewhere = replace(with_rds, settings={**settings, "rds_host": "other"})
    seen = [read_pod_annotation(chosen, tmp_path) for chosen in (staging, with_rds, elsewhere)]
    assert len(set(seen)) == len(seen)
    assert read_pod_annotation(staging, tmp_path) == seen[0]


def test_pods_restart_when_an_options_file_changes(tmp_path: Path) -> None:
    tree = attested.copy_tree(tmp_path)
    chosen = replace(environment.load("staging"), options=("high-availability",))
    before = read_pod_annotation(chosen, tmp_path, tree)
    file = tree.kit / "manifests/options/high-availability/pgbouncer.ini"
    file.write_text(file.read_text() + "; changed\n")
    assert read_pod_annotation(chosen, tmp_path, tree) != before


def test_pods_restart_when_a_secret_is_another_one(tmp_path: Path) -> None:
    chosen = environment.load("staging")
    assert read_pod_annotation(chosen, tmp_path, secrets="a 1") != read_pod_annotation(
        chosen, tmp_path, secrets="a 2"
    )


def test_pods_restart_when_the_steps_contract_changes(tmp_path: Path) -> None:
    tree = attested.copy_tree(tmp_path)
    chosen = environment.load("staging")
    before = read_pod_annotation(chosen, tmp_path, tree)
    file = tree.kit / rendering.CONTRACT
    file.write_text(file.read_text() + "# changed\n")
    assert read_pod_annotation(chosen, tmp_path, tree) != before


def test_the_strongest_values_are_last_and_filled_in(tmp_path: Path) -> None:
    production = environment.load("production")
    files = rendering.write_values_files(production, Config(home=tmp_path), tmp_path)
    assert files[0].name == "values.yaml"
    text = "".join(file.read_text("utf-8") for file in files)
    assert 'tracking_ref: "release"' in text
    assert "${" not in "".join(file.read_text("utf-8") for file in files[1:])
