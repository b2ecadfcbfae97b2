"""The chart's values, the image lock and the steps' contract: one place for each fact."""

from __future__ import annotations

import configparser
import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lab.backends.embedded import backend as embedded
from lab.backends.embedded.services import airflow
from lab.backends.embedded.site import Site
from lab.cluster import images, manifests
from lab.config import KIT
from lab.config import PLUGINS as PLUGINS_FOLDER
from lab.home.secrets import Secrets
from lab.home.state import State
from tests.support.renderings import (
    NAMES,
    VALUES,
    Object,
    airflow_cfg,
    find_object,
    locked_images,
    objects,
    objects_of_kind,
    pods,
    read_chart_file,
    temporary_home,
)
from tests.support.values import (
    KEYS,
    Place,
    check_values,
    find_exposed,
    find_scalars,
    step_variables,
)

FILES = (
    "values.yaml",
    "values-kind.yaml",
    "values-git-sync.yaml",
    "values-git-sync-ssh.yaml",
    "values-eks.yaml",
)
# The chart's names for what only the lock may say.
VERSIONS = {"airflowVersion", "defaultAirflowTag", "defaultAirflowDigest", "tag", "digest"}
# Facts of a process and its image: a step's PATH differs from machine to machine.
PROCESS = {"PATH", "HOME", "TMPDIR"}
PLUGINS = "airflow-plugins"
READER, ERRORS, CONTRACT = (
    f"images/worker/dataset_steps/{name}.py" for name in ("table", "errors", "contract")
)


def read_values(name: str) -> Object:
    found: Object = yaml.safe_load((VALUES / name).read_text("utf-8"))
    return found


def list_manifest_files() -> list[Path]:
    """List every file that is applied, or that something applied is made of."""
    found = sorted((KIT / "manifests").rglob("*.yaml"))
    assert len(found) > 15
    return found


# --- The chart's schema ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_values_are_what_the_chart_takes(name: str) -> None:
    check_values(read_values(name))


def test_the_values_of_the_lock_are_what_the_chart_takes() -> None:
    check_values(manifests.chart_values(KIT, locked_images()))


@pytest.mark.parametrize(
    "place",
    [
        ("webserverx",),
        ("apiServer", "webserverx"),
        ("scheduler", "logGroomerSidecar", "enable"),
        ("dagProcessor", "livenessProbes"),
        ("workers", "kubernetes", "resource"),
        ("logs", "persistence", "existingclaim"),
    ],
    ids=".".join,
)
def test_a_key_that_the_chart_does_not_know_is_refused(place: Place) -> None:
    wrong = copy.deepcopy(read_values("values.yaml"))
    inner: Any = wrong
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = {}
    with pytest.raises(jsonschema.ValidationError, match=place[-1]):
        check_values(wrong)


def test_a_value_of_the_wrong_type_is_refused() -> None:
    wrong = {**read_values("values.yaml"), "enableServiceLinks": "no"}
    with pytest.raises(jsonschema.ValidationError, match="enableServiceLinks"):
        check_values(wrong)


# --- Secrets --------------------------------------------------------------------------------------


def read_documents(path: Path) -> list[object]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "path", list_manifest_files(), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert not find_exposed(read_documents(path))


@pytest.mark.kind
@pytest.mark.parametrize("name", NAMES)
def test_no_rendering_holds_a_secret(name: str) -> None:
    """Neither the chart nor the overlay generates one."""
    assert not find_exposed(list(objects(name)))
    assert not objects_of_kind("Secret", name)


@pytest.mark.kind
def test_airflows_settings_hold_no_secret() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(airflow_cfg())
    assert not find_exposed({name: dict(parser[name]) for name in parser.sections()})


@pytest.mark.parametrize(
    "part",
    [
        {"env": [{"name": "MINIO_ROOT_PASSWORD", "value": "x"}]},
        {"data": {"AWS_SECRET_ACCESS_KEY": "x"}},
        {"fernetKey": "x"},
        {"data": {"metadataConnection": {"pass": "x", "password": "x"}}},
        {"createUserJob": [{"defaultUser": {"password": "admin"}}]},
        {"stringData": {"api-token": "x"}},
    ],
    ids=str,
)
def test_a_secret_that_is_written_out_is_found(part: object) -> None:
    assert find_exposed(part)


# --- The lock -------------------------------------------------------------------------------------


def find_pin(package: str) -> str:
    """Return the version of a package that the kit itself requires."""
    project = tomllib.loads((KIT / "pyproject.toml").read_text("utf-8"))["project"]
    (version,) = (
        wanted.partition("==")[2]
        for wanted in project["dependencies"]
        if wanted.partition("==")[0] == package
    )
    return str(version)


def test_the_cluster_runs_the_airflow_that_the_kit_is_made_for() -> None:
    assert locked_images()["airflow"].tag == find_pin("apache-airflow")


@pytest.mark.parametrize(
    "path", list_manifest_files(), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_no_file_but_the_lock_names_a_version(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not [image.name for image in locked_images().values() if image.tag in text]
    assert not find_versions(read_documents(path))


def find_versions(part: object) -> list[Place]:
    """List the places that name an image's version: kustomize would replace it silently."""
    return [
        place
        for place, value in find_scalars(part)
        if value
        and place
        and (place[-1] in VERSIONS or (place[-1] == "image" and ":" in str(value)))
    ]


def test_a_version_beside_the_lock_is_found() -> None:
    assert find_versions({"images": {"airflow": {"tag": "3.0.0"}}})
    assert find_versions({"airflowVersion": "3.0.0"})
    assert find_versions({"containers": [{"image": "docker.io/postgres:16"}]})
    assert not find_versions({"containers": [{"image": "docker.io/postgres"}], "tag": None})


@pytest.mark.kind
def test_the_overlay_runs_the_locked_images() -> None:
    known = locked_images()
    found = {container["image"] for pod in pods("overlay") for container in pod.containers}
    assert found == {known[key].name for key in (*images.STORES, "worker", "trainer")}


@pytest.mark.kind
def test_the_chart_runs_the_locked_image() -> None:
    found = {container["image"] for pod in pods("chart") for container in pod.containers}
    assert found == {locked_images()["airflow"].name}


@pytest.mark.kind
def test_git_sync_is_the_charts_own() -> None:
    its = yaml.safe_load(read_chart_file("values.yaml"))["images"]["gitSync"]
    found = {container["image"] for pod in pods("git-sync") for container in pod.containers}
    assert found == {locked_images()["airflow"].name, f"{its['repository']}:{its['tag']}"}


@pytest.mark.kind
def test_airflow_starts_workers_of_the_locked_image() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(airflow_cfg())
    found = parser["kubernetes_executor"]
    airflow_image = locked_images()["airflow"]
    assert found["worker_container_repository"] == airflow_image.repository
    assert found["worker_container_tag"] == airflow_image.tag


# --- The steps' contract --------------------------------------------------------------------------


def contract_on_kind() -> set[str]:
    """Return the names in the environment of a step's pod, without those of its run."""
    return step_variables("overlay")


def contract_embedded() -> set[str]:
    """Return the names in the environment of a step's process, as they are written for Airflow."""
    with temporary_home() as config:
        ports = dict.fromkeys(embedded.PORTS, 11_000)
        state = State(embedded.NAME, "sqlite", "datasets/employees.csv", None, ports)
        site = Site(config, state, Secrets(config))
        airflow.write_steps_environment(config, site.step_environment)
        return set(airflow.read_steps_environment(config))


@pytest.mark.kind
def test_a_step_sees_the_same_variables_on_every_backend() -> None:
    """But for keys: on a cluster, the pod's identity gives a step its access to S3."""
    assert contract_on_kind() == contract_embedded() - PROCESS - KEYS


@pytest.mark.kind
def test_nothing_of_the_base_is_off_aws_only() -> None:
    """On AWS there is no endpoint; and no cluster has a key."""
    assert "AWS_ENDPOINT_URL_S3" in step_variables("overlay")
    assert not KEYS & step_variables("overlay")
    extra = {"AWS_ENDPOINT_URL_S3", *KEYS}
    texts = [str(each) for each in objects("base") if each["metadata"]["name"] != PLUGINS]
    assert len(texts) > 10
    assert not [name for name in extra for text in texts if name in text]


@pytest.mark.kind
def test_a_step_has_its_credentials_from_secrets() -> None:
    container = find_object("PodTemplate", "step", "overlay")["template"]["spec"]["containers"][0]
    plain = {variable["name"] for variable in container["env"] if "valueFrom" not in variable}
    assert not plain
    assert "GIT_SYNC_PASSWORD" in {variable["name"] for variable in container["env"]}


@pytest.mark.kind
def test_airflow_is_set_up_the_same_on_every_backend() -> None:
    """DAGs come from the same branches, as soon, and by connections that exist.

    What was killed is noticed after the same number of seconds.
    """
    shared = airflow.read_shared_settings(KIT)
    parser = configparser.RawConfigParser()
    parser.read_string(airflow_cfg())
    bundles = json.loads(parser["dag_processor"]["dag_bundle_config_list"])
    assert json.loads(shared.pop("DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST")) == bundles
    assert len(shared) >= 15
    for name, value in shared.items():
        section, option = name.lower().split("__")
        assert parser[section][option] == value
    tracked = {each["name"]: each["kwargs"]["tracking_ref"] for each in bundles}
    assert tracked == {"pipelines": "main", "production": "release", "team-a": "main"}
    wanted = {f"AIRFLOW_CONN_{each['kwargs']['git_conn_id'].upper()}" for each in bundles}
    with temporary_home() as config:
        ports = dict.fromkeys(embedded.PORTS, 11_000)
        assert airflow.connection_variables(config, Secrets(config), ports).keys() == wanted
    assert wanted <= {each["envName"] for each in read_values("values.yaml")["secret"]}


@pytest.mark.kind
def test_every_plugin_reaches_the_cluster() -> None:
    """The cluster's Airflow loads the same files as the embedded one."""
    files = {path.name for path in (KIT / PLUGINS_FOLDER).iterdir() if path.is_file()}
    assert "lab_bucket.py" in files
    assert set(find_object("ConfigMap", PLUGINS, "base")["data"]) == files


@pytest.mark.parametrize("changed", ["manifests/base/plugins/lab_bucket.py", READER, CONTRACT])
def test_other_plugins_make_other_pods(tmp_path: Path, changed: str) -> None:
    for name in ("manifests/base/plugins/lab_bucket.py", READER, ERRORS, CONTRACT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one = 1\n")
    before = manifests.chart_values(tmp_path, locked_images())
    assert manifests.chart_values(tmp_path, locked_images()) == before
    (tmp_path / changed).write_text("one = 2\n")
    assert manifests.chart_values(tmp_path, locked_images()) != before


def test_airflow_s_pods_have_the_whole_reader_of_csv() -> None:
    """The volume of the plugins has each file of the ConfigMap that the image's folder makes."""
    made = yaml.safe_load((KIT / "images/worker/kustomization.yaml").read_text())
    files = [str(name) for entry in made["configMapGenerator"] for name in entry["files"]]
    for values in ("airflow/values.yaml", "options/rds/values.yaml"):
        known = yaml.safe_load((KIT / "manifests" / values).read_text())
        (volume,) = (v for v in known["volumes"] if v["name"] == "plugins")
        mounted = [source["configMap"] for source in volume["projected"]["sources"]]
        assert [one["name"] for one in mounted] == [PLUGINS, "dataset-steps"]
        assert [item["path"] for item in mounted[1]["items"]] == files
