"""Where a pod could read a static key, as far as its spec tells."""

from __future__ import annotations

from typing import Any

import pytest

from lab.cluster.static_keys import find_places

STORED = {
    "Secret/s3-credentials": {"AWS_ACCESS_KEY_ID": "steps", "AWS_SECRET_ACCESS_KEY": "x"},
    "Secret/login": {"user": "lab", "password": "y"},
    "Secret/files": {"credentials": "[default]\naws_secret_access_key = " + "a1/" * 10},
    "ConfigMap/environment": {"AWS_REGION": "eu-central-1", "S3_BUCKET": "b"},
    "ConfigMap/with-key": {"note": "the key AKIAIOSFODNN7EXAMPLE was here"},
    "ConfigMap/code": {"x.py": 'client(aws_secret_access_key=known.get("X"))'},
}


def spec(**given: Any) -> dict[str, Any]:
    volumes = given.pop("volumes", [])
    return {"containers": [{"name": "base", **given}], "volumes": volumes}


def reference(variable: str, kind: str, name: str, key: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {kind: {"name": name, "key": key}}}


@pytest.mark.parametrize(
    "found",
    [
        spec(env=[{"name": "AWS_ACCESS_KEY_ID", "value": "x"}]),
        spec(env=[{"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {}}}]),
        spec(env=[{"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/x"}]),
        spec(env=[{"name": "NOTE", "value": "ASIAIOSFODNN7EXAMPLE"}]),
        spec(envFrom=[{"secretRef": {"name": "s3-credentials", "optional": True}}]),
        spec(envFrom=[{"configMapRef": {"name": "with-key"}}]),
        spec(env=[reference("AIRFLOW_CONN_AWS", "secretKeyRef", "files", "credentials")]),
        spec(env=[reference("NOTE", "configMapKeyRef", "with-key", "note")]),
        spec(volumes=[{"name": "a", "secret": {"secretName": "files"}}]),
        spec(volumes=[{"name": "a", "secret": {"secretName": "s3-credentials"}}]),
        spec(volumes=[{"name": "a", "configMap": {"name": "with-key"}}]),
        spec(volumes=[{"name": "a", "projected": {"sources": [{"secret": {"name": "files"}}]}}]),
        {"initContainers": [{"env": [{"name": "AWS_PROFILE"}]}], "containers": []},
    ],
)
def test_a_key_within_reach_is_found(found: dict[str, Any]) -> None:
    assert list(find_places(found, STORED))


@pytest.mark.parametrize(
    "clean",
    [
        spec(),
        spec(env=[{"name": "AWS_REGION", "value": "eu-central-1"}]),
        spec(envFrom=[{"configMapRef": {"name": "environment"}}]),
        spec(envFrom=[{"secretRef": {"name": "s3-credentials-of-nobody", "optional": True}}]),
        spec(envFrom=[{"secretRef": {"name": "login"}}]),
        spec(env=[reference("PASSWORD", "secretKeyRef", "login", "password")]),
        spec(env=[reference("PASSWORD", "secretKeyRef", "nowhere", "password")]),
        spec(volumes=[{"name": "a", "secret": {"secretName": "login"}}]),
        spec(volumes=[{"name": "a", "configMap": {"name": "code"}}, {"name": "b", "emptyDir": {}}]),
    ],
)
def test_what_holds_no_key_is_left_alone(clean: dict[str, Any]) -> None:
    assert not list(find_places(clean, STORED))


def test_no_value_is_shown() -> None:
    reached = spec(env=[{"name": "NOTE", "value": "AKIAIOSFODNN7EXAMPLE"}])
    assert all("AKIA" not in place for place in find_places(reached, STORED))
