"""What `plan` prints and what it refuses, by the real kubectl, helm and chart; no network."""

from __future__ import annotations

import functools
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks import advice, attestation, difference, environment, plan, rendering, validation
from eks.difference import Difference
from eks.environment import OPTIONS, Environment
from lab.cluster import tools
from lab.config import KIT, Config
from lab.errors import EnvironmentFileError, MachineError, PromotionError
from lab.progress import silent_phase
from tests.support import attested
from tests.support.attested import make_statement
from tests.support.needs import need_renderers
from tests.support.own_project import make_project
from tests.support.renderings import SETTINGS

pytestmark = pytest.mark.kind

OPTION_NAMES = sorted(folder.name for folder in (KIT / OPTIONS).glob("*/"))
CHOICES = ("none", "staging", "another dataset", *OPTION_NAMES)
EKS = Path("manifests", "overlays", "eks", "kustomization.yaml")


@pytest.fixture(autouse=True)
def _able() -> None:
    need_renderers()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the configuration of a copy of this tree."""
    return attested.copy_tree(tmp_path)


@pytest.fixture
def staging(config: Config) -> Environment:
    return environment.load("staging", config.root)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a connection is made, and hide all credentials."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was to be made")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


def add_patch(config: Config, kind: str, *operations: dict[str, Any]) -> None:
    """Have the overlay for EKS change each object of a kind like this."""
    path = config.root / EKS
    content = yaml.safe_load(path.read_text())
    patch = {"target": {"kind": kind}, "patch": yaml.safe_dump(list(operations))}
    content.setdefault("patches", []).append(patch)
    path.write_text(yaml.safe_dump(content))


NOTED = {"op": "add", "path": "/metadata/annotations", "value": {"odd": "yes"}}


# --- What a person reads ------------------------------------------------------------------------


def read_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("offline")
def test_a_plan_needs_no_account_shows_everything_and_changes_nothing(
    config: Config, staging: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_files(tmp_path)
    found = plan.show(staging, config, tmp_path / "home", silent_phase)
    after = read_files(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(tmp_path).parts[0] for path in after.keys() - before} == {"home"}
    shown = capsys.readouterr().out
    for text in (staging.account, staging.region, staging.cluster, "NetworkPolicy/stores/minio"):
        assert text in shown
    for row in plan.list_resources(staging, config):
        assert row.kind in shown and row.what.split()[0] in shown
    for reason in {reason for _, reason in found.judged}:
        assert f"{reason} (" in shown
    assert "NOT ALLOWED" not in shown
    assert f"{found.verdict.valid} objects are valid for Kubernetes 1.36" in shown
    assert "For production" not in shown
    assert "there is no attestation" in shown
    assert "earn one: nox -s e2e -- -k kind; then: nox -s eks -- apply -e staging" in shown


def test_production_is_warned_of_what_it_lacks(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attestation.write(attestation.attestation_path(config), make_statement(config))
    production = environment.load("production", config.root)
    plan.show(production, config, tmp_path / "home", silent_phase)
    shown = capsys.readouterr().out
    warned, left = shown.index("For production"), shown.index("Left to you")
    for line in advice.list_warnings(production):
        assert warned < shown.index(line) < left
    for line in advice.find_omissions(production):
        assert left < shown.index(line) < shown.index("Attested")
    assert "attestation.json is not signed" in shown


def test_a_plan_says_whether_the_tree_was_tested(config: Config, staging: Environment) -> None:
    attestation.write(attestation.attestation_path(config), make_statement(config))
    said = str(plan.render_attestation(staging, config))
    assert "green on kind" in said and said.endswith("nox -s eks -- apply -e staging")
    path = config.root / "dags" / "assets.py"
    path.write_text(path.read_text() + "\n")
    assert "dags/assets.py was changed" in str(plan.render_attestation(staging, config))


def test_a_project_elsewhere_is_planned_with_its_own_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kit may be anywhere: what differs is no more than the image's address."""
    config = make_project(tmp_path / "churn")
    chosen = environment.load("staging", config.root)
    found = plan.show(chosen, config, tmp_path / "plan", silent_phase)
    assert found.refused == []
    template = "PodTemplate/airflow/steps"
    images = [row for row, _ in found.judged if row.object == template and "image" in row.field]
    (image,) = images
    assert image.kind and image.kind.startswith("churn/steps:")
    assert image.eks and image.eks.endswith(f"/{image.kind}")
    shown = capsys.readouterr().out
    for text in (image.kind, "churn-staging/steps", chosen.bucket, "Pod Identity of airflow-step"):
        assert text in shown
    assert chosen.datasets in shown
    assert "orders" in shown
    assert not {path.name for path in config.root.iterdir()} & {"manifests", "plan"}


# --- What is refused ----------------------------------------------------------------------------


def test_a_difference_that_nothing_allows(
    config: Config, staging: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_patch(config, "LimitRange", NOTED)
    with pytest.raises(PromotionError) as refused:
        plan.show(staging, config, tmp_path / "plan", silent_phase)
    assert refused.value.exit_code == 40
    assert "LimitRange/airflow/airflow metadata.annotations.odd" in refused.value.what
    shown = capsys.readouterr().out
    titles = [line for line in shown.splitlines() if line.endswith(")") and line[0] != " "]
    assert titles[0] == "NOT ALLOWED by eks/promotion.yaml (2)"  # of two namespaces
    assert not any("NOT ALLOWED" in title for title in titles[1:])
    assert "Next" in shown  # the rest is printed all the same


def test_a_difference_that_is_allowed_no_more(
    config: Config, staging: Environment, tmp_path: Path
) -> None:
    path = config.root / difference.PROMOTION
    entries = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump([e for e in entries if e["field"] != "data.S3_BUCKET"]))
    with pytest.raises(PromotionError, match=r"step-environment data\.S3_BUCKET"):
        plan.show(staging, config, tmp_path / "plan", silent_phase)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"op": "add", "path": "/spec/sizeLimit", "value": 1}, "'sizeLimit' was unexpected"),
        ({"op": "replace", "path": "/spec/limits/0/type", "value": 7}, "7 is not of type"),
    ],
)
def test_what_kubernetes_would_refuse(
    config: Config, staging: Environment, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    add_patch(config, "LimitRange", change)
    with pytest.raises(PromotionError, match=why) as refused:
        plan.show(staging, config, tmp_path / "plan", silent_phase)
    assert "Kubernetes would refuse" in refused.value.what


def test_the_gate_refuses_the_same(config: Config, staging: Environment, tmp_path: Path) -> None:
    attestation.write(attestation.attestation_path(config), make_statement(config))
    plan.check_promotable(staging, config, tmp_path / "plan")
    add_patch(config, "LimitRange", NOTED)
    with pytest.raises(PromotionError, match=r"metadata\.annotations\.odd"):
        plan.check_promotable(staging, config, tmp_path / "plan")


def test_an_option_that_lacks_a_setting_names_it(
    config: Config, staging: Environment, tmp_path: Path
) -> None:
    chosen = replace(staging, options=("ingress",), settings={})
    with pytest.raises(EnvironmentFileError, match="which environment staging does not give"):
        plan.show(chosen, config, tmp_path / "plan", silent_phase)


def test_a_machine_without_the_tools_is_told_so(
    config: Config, staging: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(name: str) -> Path:
        raise MachineError(f"there is no {name}", f"put {name} on PATH")

    monkeypatch.setattr(tools, "find", find_nothing)
    with pytest.raises(MachineError, match="there is no kubectl"):
        plan.show(staging, config, tmp_path / "plan", silent_phase)
    monkeypatch.undo()
    lost = replace(config, chart=tmp_path / "lost.tgz")
    with pytest.raises(MachineError, match=r"lost\.tgz"):
        plan.show(staging, lost, tmp_path / "plan", silent_phase)


# --- promotion.yaml and the options ---------------------------------------------------------------


def choose_environment(choice: str) -> Environment:
    """Return staging: with one option and its settings, with another dataset, as it is, or bare."""
    found = environment.load("staging")
    if choice == "another dataset":
        return replace(found, dataset="datasets/another.csv")
    if choice == "staging":
        return found
    return replace(found, options=() if choice == "none" else (choice,), settings=SETTINGS)


@functools.cache
def compare_choices() -> dict[str, tuple[list[Difference], validation.Verdict]]:
    """Return what differs from kind, and what Kubernetes says, for each choice."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        config = attested.with_images(Config.from_environment({}), folder / "attestation.json")
        kind = pool.submit(rendering.render_kind, config, folder / "kind")
        every = {
            choice: pool.submit(
                rendering.render_eks, choose_environment(choice), config, folder / choice
            )
            for choice in CHOICES
        }
        base = kind.result().objects()
        objects = {choice: found.result().objects() for choice, found in every.items()}
    return {
        choice: (
            difference.find_differences(base, found),
            validation.validate_objects(found, "1.36"),
        )
        for choice, found in objects.items()
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_differs_as_it_is_allowed_to(choice: str) -> None:
    rows, verdict = compare_choices()[choice]
    judged = difference.judge_differences(
        rows, difference.read_allowed(), choose_environment(choice).options
    )
    refused = [row for row, reason in judged if not reason]
    assert refused == []
    assert (verdict.refused, verdict.valid > 40) == ((), True)


def test_only_what_kubernetes_does_not_have_goes_unvalidated() -> None:
    found = {
        kind.partition("/")[0]
        for _, verdict in compare_choices().values()
        for kind in verdict.unknown
    }
    assert found <= {"ExternalSecret", "SecretStore", "ClusterSecretStore"}


def test_every_option_changes_something() -> None:
    bare = compare_choices()["none"][0]
    assert [choice for choice in CHOICES[1:] if compare_choices()[choice][0] == bare] == []


def test_every_entry_of_the_list_is_of_use() -> None:
    entries = difference.read_allowed()
    rows = {row for found, _ in compare_choices().values() for row in found}
    unused = [entry for entry in entries if not any(entry.covers(row) for row in rows)]
    assert unused == []
    assert len(set(entries)) == len(entries)


def test_no_entry_allows_what_any_entry_before_it_allows() -> None:
    entries = difference.read_allowed()
    rows = {row for found, _ in compare_choices().values() for row in found}
    first = {next(e for e in entries if e.covers(row)) for row in rows}
    assert [entry for entry in entries if entry not in first] == []


# --- Validation ---------------------------------------------------------------------------------


def test_custom_resources_are_named_and_no_more() -> None:
    found = validation.validate_objects(
        [
            {
                "apiVersion": "external-secrets.io/v1",
                "kind": "ExternalSecret",
                "metadata": {"name": "x"},
            }
        ],
        "1.36",
    )
    assert found == validation.Verdict(0, (), ("ExternalSecret/airflow/x",))


def test_the_pod_that_airflow_makes_is_judged_too() -> None:
    config_map: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "airflow-config"},
        "data": {
            "airflow.cfg": "",
            "pod_template_file.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {}}",
        },
    }
    found = validation.validate_objects([config_map], "1.36")
    assert found.valid == 1
    assert found.refused == ("Pod/airflow/p spec: 'containers' is a required property",)


@pytest.mark.parametrize(("asked", "used"), [("1.36", "1.36.0"), ("1.99", "1.37.0")])
def test_the_schemas_are_those_of_the_environment_s_version(asked: str, used: str) -> None:
    assert validation.nearest_version(asked) == used
