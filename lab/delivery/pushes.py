"""The push notification that Airflow receives: one address and one secret on every backend."""

from __future__ import annotations

from lab.home.secrets import Secrets

RECEIVER = "airflow-api-server"  # the service that is notified, and the name of its port
PATH = "/lab/push"  # manifests/base/plugins/lab_pushes.py answers there
VARIABLE = "PUSH_SECRET"  # in the receiver's environment


def push_secret(secrets: Secrets) -> str:
    """Return the secret that a sender of push notifications must present."""
    return secrets.get("push_secret", 32)
