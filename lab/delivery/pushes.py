"""How Airflow hears of a push: one address and one secret, on every backend."""

from __future__ import annotations

from lab.home.secrets import Secrets

RECEIVER = "airflow-api-server"  # the service that is told, and the name of its port
PATH = "/lab/push"  # manifests/base/plugins/lab_pushes.py answers there
VARIABLE = "PUSH_SECRET"  # of the receiver's environment


def secret(secrets: Secrets) -> str:
    """What whoever tells of a push must know."""
    return secrets.get("push_secret", 32)
