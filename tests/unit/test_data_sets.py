"""The data sets that the checkout declares: what is read, and what can't be right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab import data_sets
from lab.config import TREE
from lab.errors import LabError
from lab.lab import Lab
from tests.support.histories import build_lab

DATASET = "datasets/a.csv"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.toml"


def read(file: Path, text: str) -> dict[str, str]:
    file.write_text(text, "utf-8")
    return data_sets.read_data_sets(file.parent, DATASET)


def test_what_is_declared_is_read(file: Path) -> None:
    text = """
[data.model]
path = "models/größe in Zoll.joblib"
[data.b_2]
path = "./data//b/"
"""
    assert read(file, text) == {"model": "models/größe in Zoll.joblib", "b_2": "data/b"}
    assert read(file, "# nothing\n") == {}


def test_a_checkout_may_declare_nothing(tmp_path: Path) -> None:
    assert data_sets.read_data_sets(tmp_path, DATASET) == {}


def test_what_this_checkout_declares_is_right() -> None:
    found = data_sets.read_data_sets(TREE / "dags", DATASET)
    assert all(found.values())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[data", "it is no TOML"),
        ('path = "a"', "a data set is written as [data.NAME]"),
        ("data = 1", "a data set is written as [data.NAME]"),
        ('[data]\na = "b"', '[data.a] has `path = "…"`, and nothing else'),
        ("[data.a]", '[data.a] has `path = "…"`, and nothing else'),
        ('[data.a]\npath = "b"\nremote = "c"', "[data.a] has `path ="),
        ("[data.a]\npath = 1", "[data.a] has `path ="),
        ('[data.dataset]\npath = "b"', "dataset is the lab's own data set"),
        ('[data.A]\npath = "b"', "'A' is no name of a data set"),
        (f'[data.{"a" * 41}]\npath = "b"', "is no name of a data set"),
        ('[data.a-b]\npath = "b"', "'a-b' is no name of a data set"),
        ('[data.a]\npath = "/b"', "the path of a, '/b', is none inside the repository"),
        ('[data.a]\npath = "b/../../c"', "is none inside the repository"),
        ('[data.a]\npath = ""', "is none inside the repository"),
        ('[data.a]\npath = ".git/b"', "has a name that git and DVC keep for themselves"),
        ('[data.a]\npath = ".dvc"', "has a name that git and DVC keep for themselves"),
        ('[data.a]\npath = "b.dvc"', "has a name that git and DVC keep for themselves"),
        ('[data.a]\npath = "b\\nc"', "has a control character"),
        (
            '[data.a]\npath = "b"\n[data.c]\npath = "./b"',
            "a and c share files: they are at b and b",
        ),
        ('[data.a]\npath = "b/c"\n[data.d]\npath = "b"', "d and a share files"),
        (f'[data.a]\npath = "{DATASET}"', "a and dataset share files"),
        (
            '[data.a]\npath = "datasets"',
            f"a and dataset share files: they are at datasets and {DATASET}",
        ),
    ],
)
def test_what_can_not_be_right_is_refused_in_one_line(file: Path, text: str, why: str) -> None:
    with pytest.raises(LabError, match=r"^dags/data\.toml: [^\n]+$") as raised:
        read(file, text)
    assert why in raised.value.what


def test_a_file_that_is_not_text_or_can_not_be_read_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(LabError, match="it is no TOML"):
        data_sets.read_data_sets(file.parent, DATASET)
    file.unlink()
    file.mkdir()
    with pytest.raises(LabError, match=os.strerror(21)):
        data_sets.read_data_sets(file.parent, DATASET)


def test_neighbours_with_a_common_beginning_share_nothing(file: Path) -> None:
    text = '[data.a]\npath = "data/b"\n[data.b]\npath = "data/b-c"\n[data.c]\npath = "data/b.d"'
    assert len(read(file, text)) == 3


def test_a_lab_knows_them_by_name_and_prints_none(tmp_path: Path) -> None:
    lab = build_lab(tmp_path, DATASET, {"model": "m"})
    assert lab.data_paths == {"dataset": DATASET, "model": "m"}
    assert "data_sets" not in lab.env()
    values: dict[str, Any] = {**lab.env()}
    assert Lab(**values).data_paths == {"dataset": DATASET}
