"""What a DAG and its steps agree on: the declaration of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_steps import contract
from dataset_steps.contract import DataSetError


def read(folder: Path, text: str) -> dict[str, str]:
    file = folder / contract.FILE
    file.write_text(text, encoding="utf-8")
    return contract.read_data_sets(file)


def test_data_sets_are_declared_by_name_and_path(tmp_path: Path) -> None:
    text = """
[data.orders]
path = "data/orders"  # a directory
[data.report_2]
path = "reports/größe 1.parquet"
[data.orders_old]
path = "data/orders-old/./x"
"""
    assert read(tmp_path, text) == {
        "orders": "data/orders",
        "report_2": "reports/größe 1.parquet",
        "orders_old": "data/orders-old/x",
    }


def test_there_may_be_none(tmp_path: Path) -> None:
    assert contract.read_data_sets(tmp_path / contract.FILE) == {}
    assert read(tmp_path, "") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[data.a", "is not TOML"),
        ("[sets.a]", "has 'sets'"),
        ("data = 1", r"written as \[data.NAME\]"),
        ("[data.a]", "has `path = "),
        ('[data.a]\npath = "x"\nformat = "csv"', "and nothing else"),
        ("[data.a]\npath = 1", "has `path = "),
        ('data.a = "x"', "has `path = "),
        ('[data.dataset]\npath = "x"', "is the lab's own data set"),
        ('[data.Orders]\npath = "x"', "'Orders' is no name of a data set"),
        ('[data."a-b"]\npath = "x"', "is no name of a data set"),
        (f'[data.{"a" * 41}]\npath = "x"', "is no name of a data set"),
        ('[data.a]\npath = "/x"', "is not a path inside the repository"),
        ('[data.a]\npath = "x/../../y"', "is not a path inside the repository"),
        ('[data.a]\npath = ""', "is not a path inside the repository"),
        ('[data.a]\npath = "x\\ny"', "is not a path inside the repository"),
        ('[data.a]\npath = ".git/x"', "is git's or DVC's own"),
        ('[data.a]\npath = ".dvc"', "is git's or DVC's own"),
        ('[data.a]\npath = "x/.gitignore"', "is git's or DVC's own"),
        ('[data.a]\npath = "x.dvc"', "is a pointer's"),
        ('[data.a]\npath = "x:y"', "is none that DVC takes"),
        ("[data.a]\npath = 'x\\y'", "is none that DVC takes"),
        ('[data.a]\npath = "x "', "is none that DVC takes"),
        (f'[data.a]\npath = "{"ä" * 126}"', "is none that DVC takes"),
        ('[data.a]\npath = "x/y"\n[data.b]\npath = "x/./y"', "a and b are both at x/y"),
        ('[data.a]\npath = "x/y/z"\n[data.b]\npath = "x"', "b and a are inside each other"),
    ],
)
def test_a_declaration_that_can_not_be_right(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(DataSetError, match=why) as refusal:
        read(tmp_path, text)
    assert "\n" not in str(refusal.value)


def test_names_that_only_begin_alike_are_apart(tmp_path: Path) -> None:
    text = '[data.a]\npath = "x/y"\n[data.b]\npath = "x/y-z"\n[data.c]\npath = "x/y.csv"'
    assert len(read(tmp_path, text)) == 3
