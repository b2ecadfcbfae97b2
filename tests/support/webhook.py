"""What EKS's webhook does to a pod whose service account has a Pod Identity association.

This is what its source says (aws/amazon-eks-pod-identity-webhook, pkg/handler/handler.go, in the
mode of container credentials), written down anew: the webhook can't be had outside of EKS.
"""

from __future__ import annotations

import copy
from typing import Any

REGION = "us-east-1"
VOLUME = "eks-pod-identity-token"
FOLDER = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
AGENT = "http://169.254.170.23/v1/credentials"
DAY = 86400  # seconds that a token lasts
# A group of variables is added to a container that has none of the group.
GROUPS = (
    {"AWS_STS_REGIONAL_ENDPOINTS": "regional"},
    {"AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION},
    {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": AGENT,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{FOLDER}/{VOLUME}",
    },
)

Pod = dict[str, Any]


def add_identity(pod: Pod) -> Pod:
    """Return the pod as the webhook changes it."""
    made = copy.deepcopy(pod)
    made["metadata"].setdefault("labels", {})["eks.amazonaws.com/pod-identity"] = "enabled"
    spec = made["spec"]
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        change_container(container)
    volumes = spec.setdefault("volumes", [])
    if not any(volume["name"] == VOLUME for volume in volumes):
        volumes.insert(0, token_volume())
    return made


def token_volume() -> dict[str, Any]:
    token = {"audience": "pods.eks.amazonaws.com", "expirationSeconds": DAY, "path": VOLUME}
    return {"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


def change_container(container: dict[str, Any]) -> None:
    """Add to a container what it lacks."""
    variables = container.setdefault("env", [])
    for group in GROUPS:
        if not any(one["name"] in group for one in variables):
            variables += [{"name": name, "value": value} for name, value in group.items()]
    mounts = container.setdefault("volumeMounts", [])
    if not any(mount["name"] == VOLUME for mount in mounts):
        mounts.append({"name": VOLUME, "readOnly": True, "mountPath": FOLDER})
