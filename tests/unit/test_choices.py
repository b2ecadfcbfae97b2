"""Options that contradict those a lab was created with are refused before anything changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.backends import choices
from lab.config import Config
from lab.errors import LabError, PortError
from lab.home.state import State

MADE = State(
    backend="kind",
    database="postgresql",
    dataset_path="datasets/employees.csv",
    dataset_source=None,
    ports={"minio": 11_000, "gitea": 11_001},
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "lab")


# --- Backend, database, dataset -----------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"backend": "auto"},
        {"backend": "kind"},
        {"database": "postgresql"},
        {"dataset": Path("somewhere", "employees.csv")},
        {"backend": "kind", "database": "postgresql", "dataset": Path("/elsewhere/employees.csv")},
    ],
)
def test_what_a_lab_was_made_with_may_be_said_again(config: Config, asked: dict[str, Any]) -> None:
    choices.refuse_other_choices(replace(config, **asked), MADE)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"backend": "embedded"}, "--backend kind, not embedded"),
        ({"database": "sqlite"}, "--database postgresql, not sqlite"),
        (
            {"dataset": Path("/tmp/other.csv")},
            "--dataset datasets/employees.csv, not datasets/other.csv",
        ),
        ({"database": "sqlite", "backend": "embedded"}, "--backend kind, not embedded"),
    ],
)
def test_another_choice_is_refused(config: Config, asked: dict[str, Any], what: str) -> None:
    with pytest.raises(LabError) as caught:
        choices.refuse_other_choices(replace(config, **asked), MADE)
    assert caught.value.what == f"this lab was made with {what}"
    assert caught.value.fix == "leave the option out, or set another LAB_HOME for a second lab"
    assert not config.home.exists()


def test_a_dataset_of_ones_own_may_be_said_again_or_left_out(config: Config) -> None:
    made = replace(MADE, dataset_path="datasets/mine.csv", dataset_source="/data/mine.csv")
    choices.refuse_other_choices(config, made)
    choices.refuse_other_choices(replace(config, dataset=Path("/data/mine.csv")), made)
    with pytest.raises(LabError, match=r"made with --dataset datasets/mine\.csv"):
        choices.refuse_other_choices(replace(config, dataset=Path("/data/employees.csv")), made)


# --- Ports --------------------------------------------------------------------------------------


def test_a_service_may_be_pinned(config: Config) -> None:
    choices.refuse_unknown_pins(config, ["minio", "gitea"])
    choices.refuse_unknown_pins(replace(config, ports={"gitea": 12_000}), ["minio", "gitea"])


def test_what_is_no_service_may_not_be_pinned(config: Config) -> None:
    pinned = replace(config, ports={"minio": 12_000, "gitae": 12_001, "z": 12_002})
    with pytest.raises(PortError) as caught:
        choices.refuse_unknown_pins(pinned, ["minio", "airflow-api-server"])
    assert caught.value.what == "LAB_PORT_GITAE is of no service"
    assert caught.value.fix == "choose from LAB_PORT_MINIO, LAB_PORT_AIRFLOW_API_SERVER"


@pytest.mark.parametrize(
    ("pins", "running"),
    [
        ({}, ["minio", "gitea"]),
        ({"minio": 11_000}, ["minio", "gitea"]),  # its present port
        ({"minio": 12_000}, []),  # used at the next start
        ({"minio": 12_000}, ["gitea"]),
        ({"airflow-api-server": 12_000}, ["minio"]),  # a service that is new to the lab
    ],
)
def test_a_port_may_be_pinned(config: Config, pins: dict[str, int], running: list[str]) -> None:
    choices.refuse_moved_ports(replace(config, ports=pins), dict(MADE.ports), running)


def test_a_service_that_runs_is_not_moved(config: Config) -> None:
    pinned = replace(config, ports={"minio": 12_000, "gitea": 11_001})
    with pytest.raises(PortError) as caught:
        choices.refuse_moved_ports(pinned, dict(MADE.ports), ["gitea", "minio"])
    assert caught.value.what == "minio runs on port 11000, not 12000"
    assert caught.value.fix == "lab down, then lab up with the new port"
