"""The content of a cluster's Secrets, and where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from eks import environment, prerequisites, release
from eks.environment import Environment
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW, STORES
from lab.errors import EnvironmentFileError, PromotionError

SETTINGS = {
    "rds_host": "db.example.org",
    "rds_user": "airflow",
    "rds_database": "metadata",
    "pipelines_host_key": "ssh-ed25519 AAAA",
}


@dataclass
class FakeCluster:
    """A cluster as far as these tests need one: it returns the content of its Secrets."""

    values: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)

    def read_secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        return self.values.get((namespace, name))

    @property
    def api(self) -> Cluster:
        return cast("Cluster", self)


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in release.GIVEN:
        monkeypatch.setenv(one.variable, f"my-{one.variable}")


def load_staging(*options: str, **changed: Any) -> Environment:
    found = environment.load("staging")
    return replace(found, options=options, settings=SETTINGS, **changed)


def test_everything_random_differs_from_cluster_to_cluster() -> None:
    one, other = (release.build_secrets(load_staging(), FakeCluster().api) for _ in range(2))
    assert one.keys() == other.keys()
    for name, key in (
        ((AIRFLOW, "airflow-fernet-key"), "fernet-key"),
        ((AIRFLOW, "airflow-api-secret-key"), "api-secret-key"),
        ((AIRFLOW, "airflow-jwt-secret"), "jwt-secret"),
        ((AIRFLOW, "airflow-login"), "password"),
        ((STORES, "postgresql"), "password"),
    ):
        assert one[name][key] != other[name][key]
        assert len(one[name][key]) >= 32


def test_the_fernet_key_is_one() -> None:
    from cryptography.fernet import Fernet

    key = release.build_secrets(load_staging(), FakeCluster().api)[AIRFLOW, "airflow-fernet-key"][
        "fernet-key"
    ]
    assert Fernet(key).decrypt(Fernet(key).encrypt(b"x")) == b"x"


def test_a_half_written_cluster_is_completed_with_the_same_password() -> None:
    held = FakeCluster({(STORES, "postgresql"): {"password": "the-first-one"}})
    wanted = release.build_secrets(load_staging(), held.api)
    assert wanted[AIRFLOW, "airflow-metadata"]["password"] == "the-first-one"
    order = list(wanted)
    assert order.index((STORES, "postgresql")) < order.index((AIRFLOW, "airflow-metadata"))


def test_no_address_holds_a_password_and_no_secret_has_keys_of_s3() -> None:
    wanted = release.build_secrets(load_staging(), FakeCluster().api)
    assert "@" in wanted[AIRFLOW, "airflow-metadata"]["connection"]
    assert wanted[STORES, "postgresql"]["password"] not in str(
        wanted[AIRFLOW, "airflow-metadata"]["connection"]
    )
    connection = json.loads(wanted[AIRFLOW, "pipelines-credentials"]["connection"])
    assert connection["host"] == load_staging().pipelines
    assert not [key for content in wanted.values() for key in content if key.startswith("AWS")]


def test_rds_has_its_own_address_and_no_database_in_the_cluster() -> None:
    wanted = release.build_secrets(load_staging("rds"), FakeCluster().api)
    assert (STORES, "postgresql") not in wanted
    assert wanted[AIRFLOW, "airflow-metadata"] == {
        "connection": "postgresql://airflow@db.example.org:5432/metadata",
        "password": "my-RDS_PASSWORD",
    }


def test_a_private_repository_is_reached_by_a_key_that_is_only_named() -> None:
    chosen = load_staging("private-repository", pipelines="ssh://git@git.example.org/x.git")
    wanted = release.build_secrets(chosen, FakeCluster().api)
    assert wanted[AIRFLOW, "pipelines-ssh"]["key"] == "my-PIPELINES_SSH_KEY\n"
    assert wanted[AIRFLOW, "pipelines-ssh"]["known-hosts"].endswith(" ssh-ed25519 AAAA\n")
    connection = wanted[AIRFLOW, "pipelines-credentials"]["connection"]
    assert json.loads(connection)["host"] == "ssh://git@git.example.org/x.git"
    assert "my-PIPELINES_SSH_KEY" not in connection


def test_a_private_repository_without_its_servers_key_is_refused() -> None:
    chosen = replace(load_staging("private-repository"), settings={})
    with pytest.raises(EnvironmentFileError, match="pipelines_host_key"):
        release.build_secrets(chosen, FakeCluster().api)


def test_oidc_has_its_secret() -> None:
    wanted = release.build_secrets(load_staging("oidc"), FakeCluster().api)
    assert wanted[AIRFLOW, "airflow-oidc"] == {"client-secret": "my-OIDC_CLIENT_SECRET"}


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        ((), "GIT_SYNC_USERNAME"),
        ((), "GIT_SYNC_PASSWORD"),
        (("rds",), "RDS_PASSWORD"),
        (("oidc",), "OIDC_CLIENT_SECRET"),
        (("private-repository",), "PIPELINES_SSH_KEY"),
    ],
)
def test_what_nobody_gives_is_refused_by_name(
    options: tuple[str, ...], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.delenv(variable)
    monkeypatch.setattr(release, "refuse_foreign", lambda *_: None)  # tested on kind
    monkeypatch.setattr(release, "render_manifests", lambda *_: "")
    monkeypatch.setattr(prerequisites, "check", lambda *_: None)  # tested on kind
    site: Any = SimpleNamespace(environment=load_staging(*options))
    for api in (None, FakeCluster().api):
        with pytest.raises(PromotionError) as refused:
            release.check(site, api)
        assert variable in refused.value.what
        assert "my-" not in refused.value.what
    one = next(one for one in release.GIVEN if one.variable == variable)
    release.check(site, FakeCluster({(AIRFLOW, one.secret): {one.key: "kept"}}).api)


def test_with_external_secrets_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert release.required_values(load_staging("external-secrets", "rds", "oidc")) == []
