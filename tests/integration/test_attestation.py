"""The attestation and the promotion that it allows, on a copy of this tree, by the real kubectl."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks import attestation, environment, plan
from eks.attestation import BASE, RENDERING, Statement
from eks.environment import Environment
from lab.cluster import images
from lab.config import Config
from lab.delivery import ssh
from lab.errors import PromotionError
from tests.support import attested
from tests.support.attested import PREDICATE, make_statement
from tests.support.needs import need_chart, need_tool

pytestmark = pytest.mark.kind

SEED = 20260102
SERVICE_ACCOUNTS = BASE / "service-accounts.yaml"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the configuration of a copy of this tree, which is attested."""
    need_tool("kubectl")
    found = attested.use_library(attested.copy_tree(tmp_path), monkeypatch)
    attestation.write(attestation.attestation_path(found), make_statement(found))
    return found


@pytest.fixture
def staging(config: Config) -> Environment:
    return environment.load("staging", config.root)


# --- The base as Kubernetes receives it ---------------------------------------------------------


def test_the_rendering_is_the_same_however_its_yaml_is_laid_out(config: Config) -> None:
    before = attestation.digest_rendering(config.root)
    for path in (config.root / BASE).glob("*.yaml"):
        parts = list(yaml.safe_load_all(path.read_text()))
        path.write_text("# laid out anew\n" + yaml.safe_dump_all(parts, indent=7))
    assert attestation.digest_rendering(config.root) == before


def test_the_rendering_is_another_when_an_object_is(config: Config) -> None:
    before = attestation.digest_rendering(config.root)
    path = config.root / SERVICE_ACCOUNTS
    path.write_text(path.read_text().replace("airflow-step", "airflow-steps"))
    assert attestation.digest_rendering(config.root) != before


def test_the_same_files_that_give_another_rendering_are_not_what_was_tested(
    config: Config,
) -> None:
    subjects = {**attestation.compute_digests(config), RENDERING: "0" * 64}
    found = Statement(subjects, PREDICATE)
    assert attestation.list_changes(found, config) == [f"{RENDERING} was changed"]


# --- Every file of kind is covered --------------------------------------------------------------


def list_kustomize_files(folder: Path) -> Iterator[Path]:
    """Yield each file that Kustomize reads for a folder."""
    file = folder / "kustomization.yaml"
    yield file
    said: dict[str, Any] = yaml.safe_load(file.read_text())
    named = [*said.get("resources", []), *said.get("components", [])]
    named += [entry["path"] for entry in said.get("patches", []) if "path" in entry]
    for generator in said.get("configMapGenerator", []):
        named += [entry.rpartition("=")[2] for entry in generator.get("files", [])]
    for path in [(folder / name).resolve() for name in named]:
        yield from list_kustomize_files(path) if path.is_dir() else [path]


def test_every_file_of_kind_s_overlay_is_a_subject(config: Config) -> None:
    read = {
        p.relative_to(config.root)
        for p in list_kustomize_files(config.root / "manifests/overlays/kind")
    }
    assert len(read) > 20
    assert {path.as_posix() for path in read} <= attestation.digest_files(config).keys()


def test_every_folder_that_an_image_of_airflow_s_is_built_from_is_a_subject(
    config: Config,
) -> None:
    known = images.read_lock(config)
    folders = {known[key].folder for key in images.AIRFLOW} - {None}
    assert folders == {config.root / folder for folder in attestation.BUILT}


# --- The gate -----------------------------------------------------------------------------------


def test_what_was_tested_passes(config: Config, staging: Environment, tmp_path: Path) -> None:
    need_tool("helm")
    need_chart()
    plan.check_promotable(staging, config, tmp_path / "plan")


def test_one_byte_anywhere_ends_the_promotion(
    config: Config, staging: Environment, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    paths = list(attestation.list_promoted_files(config))
    assert len(paths) > 80
    for path in paths:
        name, before = path.relative_to(config.root).as_posix(), path.read_bytes()
        position = chance.randrange(len(before) + 1)
        path.write_bytes(before[:position] + b"\x07" + before[position + 1 :])
        with pytest.raises(PromotionError) as refused:
            plan.check_promotable(staging, config, tmp_path / "plan")
        assert f"\n    {name} was changed" in refused.value.what
        assert "nox -s e2e -- -k kind" in refused.value.fix
        path.write_bytes(before)
    assert attestation.check(config)


@pytest.mark.parametrize("name", ["images/lock.toml", "lab.toml"])
def test_a_file_that_names_others_may_be_no_toml_any_more(
    config: Config, staging: Environment, tmp_path: Path, name: str
) -> None:
    config.root.joinpath(name).write_text('name = "\n', "utf-8")
    with pytest.raises(PromotionError, match=f"\n    {name} was changed$"):
        plan.check_promotable(staging, config, tmp_path / "plan")
    config.root.joinpath(name).unlink()
    with pytest.raises(PromotionError, match=f"\n    {name} was removed$"):
        plan.check_promotable(staging, config, tmp_path / "plan")


@pytest.mark.parametrize("folder", [str(BASE), "dags", "images/worker/dataset_steps"])
def test_a_file_more_or_less_ends_the_promotion(
    config: Config, staging: Environment, tmp_path: Path, folder: str
) -> None:
    first = min((config.root / folder).glob("*.[py]*"))
    first.rename(first.with_name("renamed.py"))
    with pytest.raises(PromotionError) as refused:
        plan.check_promotable(staging, config, tmp_path / "plan")
    assert f"{folder}/{first.name} was removed" in refused.value.what
    assert f"{folder}/renamed.py was added" in refused.value.what


def test_nothing_is_promoted_without_an_attestation(
    config: Config, staging: Environment, tmp_path: Path
) -> None:
    attestation.attestation_path(config).unlink()
    with pytest.raises(PromotionError, match="there is no attestation"):
        plan.check_promotable(staging, config, tmp_path / "plan")


def test_an_environment_that_names_a_key_takes_no_unsigned_attestation(
    config: Config, tmp_path: Path
) -> None:
    private = tmp_path / "key"
    private.write_text(ssh.generate_private_key())
    (config.root / "eks" / "key.pub").write_text(ssh.public_key(private.read_text()))
    chosen = replace(environment.load("staging", config.root), attestation_key="eks/key.pub")
    with pytest.raises(PromotionError, match="is not signed"):
        plan.check_promotable(chosen, config, tmp_path / "plan")
    attestation.write(attestation.attestation_path(config), make_statement(config), private)
    assert attestation.check(config, attestation.public_key_path(chosen, config)).signer
