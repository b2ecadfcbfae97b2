"""Gitea's configuration in the lab's manifest."""

from __future__ import annotations

import secrets

import yaml

from lab.config import KIT

MANIFEST = KIT / "manifests" / "overlays" / "kind" / "gitea" / "gitea.yaml"
PORT, SSH_PORT = 3000, 2222
RANDOM = ("security__SECRET_KEY", "security__INTERNAL_TOKEN", "oauth2__JWT_SECRET")


def settings() -> dict[str, str]:
    """Return Gitea's environment in the cluster, with fresh random secrets."""
    documents = yaml.safe_load_all(MANIFEST.read_text("utf-8"))
    (given,) = [one["data"] for one in documents if one["kind"] == "ConfigMap"]
    return {**given, **{f"GITEA__{name}": secrets.token_hex(32) for name in RANDOM}}
