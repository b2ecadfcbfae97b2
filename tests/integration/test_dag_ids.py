"""Staging and production hold the same DAG files; in Airflow their DAGs have other ids."""

from __future__ import annotations

import pytest

from lab.config import KIT, Config
from lab.delivery import bundle
from tests.support.dag_tasks import run_parser

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LAYOUTS = {  # the folder of a bundle's DAGs, and the prefix of their ids
    "pipelines/tracking_repo/dags": "",
    f"pipelines/versions/{COMMIT}/dags": "",
    "production/tracking_repo/dags": "production.",
    f"production/versions/{COMMIT}/dags": "production.",
    "home/production/pipelines/tracking_repo/dags": "",
    "home/dags/production/dags": "",
}
# Each folder is parsed in its own process: in Airflow, too, no process parses two bundles.
PARSER = """
import json, multiprocessing, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag

def parse(folder):
    bag = BundleDagBag(dag_folder=folder, bundle_path=Path(folder), bundle_name="any")
    assets = [a.name for dag in bag.dags.values() for task in dag.tasks for a in task.outlets]
    ids = {name: Path(dag.fileloc).name for name, dag in bag.dags.items()}
    return {"ids": ids, "errors": bag.import_errors, "assets": assets}

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(pool.map(parse, sys.argv[1:], chunksize=1)))
"""


@pytest.fixture(scope="module", params=["process", "pod"])
def parsed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, str]]]:
    """Return the ids, errors and assets that Airflow finds in a copy of the DAGs in each folder."""
    home = tmp_path_factory.mktemp("bundles")
    for layout in LAYOUTS:
        bundle.write_bundle(Config(home=home), home / layout)
    folders = (home / layout for layout in LAYOUTS)
    found = run_parser(PARSER, *folders, home=home, runtime=request.param)
    return dict(zip(LAYOUTS, found, strict=True))


def list_dag_files() -> list[str]:
    """List the checkout's DAG files, without the modules that they import."""
    ignored = (KIT / "dags" / ".airflowignore").read_text("utf-8").splitlines()
    return sorted(p.name for p in (KIT / "dags").glob("*.py") if p.name not in ignored)


@pytest.mark.parametrize(("layout", "prefix"), LAYOUTS.items())
def test_each_file_has_one_dag_that_is_called_after_it(
    parsed: dict[str, dict[str, dict[str, str]]], layout: str, prefix: str
) -> None:
    found = parsed[layout]
    assert not found["errors"]
    assert found["ids"] == {
        f"{prefix}{name.removesuffix('.py')}": name for name in list_dag_files()
    }


def test_what_staging_makes_starts_nothing_in_production(
    parsed: dict[str, dict[str, dict[str, str]]],
) -> None:
    staging, production = (
        set(parsed[f"{name}/tracking_repo/dags"]["assets"]) for name in ("pipelines", "production")
    )
    assert staging
    assert production == {f"production.{name}" for name in staging}
