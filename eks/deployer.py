"""The policy of the person who applies: what they need in the account, and no more."""

from __future__ import annotations

from typing import Any

from eks.identity import render_document
from eks.registry import repository_name
from eks.site import Site

POLICY = "deployer"  # its file in eks/policies


def render_policy(site: Site) -> dict[str, Any]:
    """Return `eks/policies/deployer.json` with the environment's values, as IAM takes it."""
    repositories = repository_name(site.environment, "").rstrip("/")
    return render_document(site, POLICY, repositories=repositories)
