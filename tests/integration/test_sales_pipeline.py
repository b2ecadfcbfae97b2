"""What runs of sales_pipeline leave in the bucket does not grow without bound."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import layout
from lab.wait import NotYet, wait_until
from tests.support.dag_tasks import with_plugins
from tests.support.stores import Stores

PREFIX = "results/sales_pipeline/runs/"
NAMES = ("extracted.json", "transformed.json", "valid.json")


@pytest.fixture(scope="module")
def sales(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Yield the DAG file's module as a task imports it, with the stores' contract."""
    contract = tmp_path_factory.mktemp("contract") / "steps.json"
    contract.write_text(json.dumps(stores.site.step_environment), "utf-8")
    variables = {"STEP_RUNTIME": "process", "STEP_ENVIRONMENT_FILE": str(contract)}
    with with_plugins(tmp_path_factory, **variables):
        yield importlib.import_module("sales_pipeline")


def write_runs(sales: ModuleType, *numbers: int) -> set[str]:
    """Write the objects of runs with these numbers and return the runs' folders."""
    runs = {f"{PREFIX}run-{number:02}" for number in numbers}
    for run in runs:
        for name in NAMES:
            sales.lab_bucket.write(f"{run}/{name}", b"[]")
    return runs


def await_another_second(sales: ModuleType, stores: Stores) -> None:
    """Wait until what is written is newer for S3, which counts in seconds."""
    place = {"Bucket": layout.BUCKET, "Key": "probe"}

    def write_probe() -> Any:
        sales.lab_bucket.write("probe", b"")
        return stores.client.head_object(**place)["LastModified"]

    first = write_probe()

    def expect_newer() -> None:
        if write_probe() == first:
            raise NotYet("it is the same second")

    wait_until(expect_newer, what="another second", timeout=30)


def list_keys(stores: Stores) -> list[str]:
    found = stores.client.list_objects_v2(Bucket=layout.BUCKET, Prefix=PREFIX)
    return [entry["Key"] for entry in found["Contents"]]


def test_the_newest_runs_are_kept_whole_and_the_others_are_gone(
    sales: ModuleType, stores: Stores
) -> None:
    write_runs(sales, 97, 98, 99)
    await_another_second(sales, stores)
    newest = write_runs(sales, *range(sales.KEPT_RUNS))
    sales.lab_bucket.write(f"{PREFIX.removesuffix('runs/')}warehouse.csv", b"id\n")
    sales.delete_old_runs(PREFIX)
    assert sorted(list_keys(stores)) == sorted(f"{run}/{name}" for run in newest for name in NAMES)
    assert sales.lab_bucket.read("results/sales_pipeline/warehouse.csv") == b"id\n"


def test_where_nothing_may_be_deleted_the_run_goes_on(
    sales: ModuleType,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on a server whose policy lets a step delete nothing."""
    before = write_runs(sales, *range(sales.KEPT_RUNS + 3))
    client = sales.lab_bucket.client()
    client.meta.events.register("before-call.s3.DeleteObject", refuse)
    monkeypatch.setattr(sales.lab_bucket, "client", lambda: client)
    sales.delete_old_runs(PREFIX)
    assert {key.rpartition("/")[0] for key in list_keys(stores)} == before
    assert "AccessDenied" in capsys.readouterr().out


def refuse(**_: Any) -> None:
    raise ClientError({"Error": {"Code": "AccessDenied"}}, "DeleteObject")
