"""What a DAG and its steps agree on: the declaration of data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dataset_steps import contract
from dataset_steps.contract import DataSetError, Declared


def read(folder: Path, data: Mapping[str, str], **more: Any) -> Declared:
    file = folder / contract.FILE
    file.write_text(json.dumps({"main": "a", "data": data, "images": {}, **more}), "utf-8")
    return contract.read_declared(file)


def test_data_sets_are_declared_by_name_and_path(tmp_path: Path) -> None:
    data = {
        "a": "data/orders",  # a directory
        "report_2": "reports/größe 1.parquet",
        "orders_old": "data/orders-old/./x",
    }
    images = {"steps": {"memory": "1Gi"}, "dbt": {"memory": None}}
    found = read(tmp_path, data, images=images)
    others = {"report_2": "reports/größe 1.parquet", "orders_old": "data/orders-old/x"}
    assert (found.main, found.paths) == ("a", others)
    assert found.memory == {"steps": "1Gi", "dbt": None}


def test_without_a_declaration_no_dag_can_be_parsed(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"the kit writes it from lab\.toml"):
        contract.read_declared(tmp_path / contract.FILE)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"data": {}, "images": {}}', '{"main": "a", "data": [1], "images": {}}', "\xff"],
)
def test_what_does_not_say_what_is_declared_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / contract.FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataSetError, match=r"does not say what lab\.toml declares"):
        contract.read_declared(tmp_path / contract.FILE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "names 'a' as its main data set, and declares none"),
        ({"Orders": "x"}, "'Orders' is no name of a data set"),
        ({"a-b": "x"}, "is no name of a data set"),
        ({"a" * 41: "x"}, "is no name of a data set"),
        ({"a": "/x"}, "is not a path inside the repository"),
        ({"a": "x/../../y"}, "is not a path inside the repository"),
        ({"a": ""}, "is not a path inside the repository"),
        ({"a": "x\ny"}, "is not a path inside the repository"),
        ({"a": ".git/x"}, "is git's or DVC's own"),
        ({"a": ".dvc"}, "is git's or DVC's own"),
        ({"a": "x/.gitignore"}, "is git's or DVC's own"),
        ({"a": "x.dvc"}, "is a pointer's"),
        ({"a": "x:y"}, "is none that DVC takes"),
        ({"a": "x\\y"}, "is none that DVC takes"),
        ({"a": "x "}, "is none that DVC takes"),
        ({"a": "ä" * 126}, "is none that DVC takes"),
        ({"a": "x/y", "b": "x/./y"}, "a and b are both at x/y"),
        ({"a": "x/y/z", "b": "x"}, "b and a are inside each other"),
    ],
)
def test_a_declaration_that_can_not_be_right(
    tmp_path: Path, data: Mapping[str, str], why: str
) -> None:
    with pytest.raises(DataSetError, match=why) as refusal:
        read(tmp_path, data)
    assert "\n" not in str(refusal.value)


def test_names_that_only_begin_alike_are_apart(tmp_path: Path) -> None:
    assert len(read(tmp_path, {"a": "x/y", "b": "x/y-z", "c": "x/y.csv"}).paths) == 2
