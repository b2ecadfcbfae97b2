"""A file for kubectl that holds no secret: `eks.token` signs in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eks.aws import (
    describe_cluster,
)
from eks.site import Site
from lab.config import PACKAGE
from lab.errors import NotRunningError
from lab.files import write_private_file


def write_kubeconfig(site: Site) -> Path:
    """Write the kubeconfig of the cluster as it is now. It has no secret: `eks.token` signs in."""
    import yaml

    name = site.environment.cluster
    found = describe_cluster(site.aws, name)
    if not found or "endpoint" not in found:
        raise NotRunningError(f"there is no cluster {name} that answers", "nox -s eks -- apply")
    path = site.folder / "kubeconfig"
    write_private_file(path, yaml.safe_dump(build_kubeconfig(site, found), sort_keys=False))
    return path


def build_kubeconfig(site: Site, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig of one cluster, one user and the context of both."""
    name = site.environment.cluster
    where = {
        "server": found["endpoint"],
        "certificate-authority-data": found["certificateAuthority"]["data"],
    }
    signs_in = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-m", "eks.token", site.aws.region, name],
        "env": [{"name": "PYTHONPATH", "value": str(PACKAGE.parent)}],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": where}],
        "users": [{"name": name, "user": {"exec": signs_in}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
