"""What AWS's webhook does to a pod whose service account has a role, done by the API server itself.

A MutatingAdmissionPolicy adds to such a pod, when it is made, the variables by which an SDK finds
the agent, the token that the agent asks for, and a label. What a container has already is left
alone, as by the webhook. Nothing in `dags/` or `manifests/base` knows of it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lab.backends.kind.site import Site
from lab.client.s3 import REGION
from lab.cluster.api import Cluster
from lab.cluster.associations import list_accounts, read_roles
from lab.cluster.workloads import AIRFLOW, STORES
from lab.errors import LabError
from lab.wait import NotYet, wait_until

NAME = "pod-identity"
AUDIENCE = "pods.eks.amazonaws.com"
VOLUME = "eks-pod-identity-token"  # and the name of the file in it
FOLDER = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
TOKEN_SECONDS = 86400
LABEL = "eks.amazonaws.com/pod-identity"
# The variables, in the webhook's order: a group is added unless the container has one of it.
VARIABLES = (
    {"AWS_STS_REGIONAL_ENDPOINTS": "regional"},
    {"AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION},
    {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{FOLDER}/{VOLUME}",
    },
)
SEEN_SECONDS = 60  # until the API server applies a policy that it has just been given


def render_identity(kit: Path) -> str:
    """Return the objects that `manifests/base/associations.yaml` is on kind, as YAML.

    Raises AssociationError.
    """
    roles = {f"{AIRFLOW}/{one}": role.name for role in read_roles(kit) for one in role.accounts}
    return yaml.safe_dump_all(
        [associations_map(roles), admission_policy(sorted(roles)), admission_binding()],
        sort_keys=False,
    )


def associations_map(roles: dict[str, str]) -> dict[str, Any]:
    """Return the ConfigMap that EKS Auth's stand-in reads."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "associations", "namespace": STORES},
        "data": {"associations.json": json.dumps(roles, indent=1, sort_keys=True)},
    }


def admission_policy(accounts: list[str]) -> dict[str, Any]:
    """Return the policy for the pods of these accounts, each `namespace/name`."""
    namespaces = sorted({account.partition("/")[0] for account in accounts})
    own = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}
    account = "request.namespace + '/' + object.spec.?serviceAccountName.orValue('default')"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "namespaceSelector": {"matchExpressions": [own]},
                "resourceRules": [{**pods, "resources": ["pods"]}],
            },
            "matchConditions": [
                {"name": "has-a-role", "expression": f"{account} in {json.dumps(accounts)}"}
            ],
            "mutations": [
                {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}
                for expression in (add_label(), add_volume(), *map(add_to_each, CONTAINERS))
            ],
        },
    }


CONTAINERS = ("containers", "initContainers")


def admission_binding() -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME},
    }


# --- Expressions of CEL -------------------------------------------------------------------------


def patch(path: str, value: str) -> str:
    """Return a patch that adds a value; `path` and `value` are expressions."""
    return f'JSONPatch{{op: "add", path: {path}, value: {value}}}'


def quote(value: object) -> str:
    """Return a value of JSON as an expression. The values of a map may differ in type: `dyn`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: dyn({quote(v)})" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(quote, value)) + "]"
    return json.dumps(value)


def add_label() -> str:
    """Return the patches that add the label."""
    whole = patch('"/metadata/labels"', quote({LABEL: "enabled"}))
    one = patch(f'"/metadata/labels/" + jsonpatch.escapeKey({quote(LABEL)})', '"enabled"')
    return f"has(object.metadata.labels) ? [{one}] : [{whole}]"


def add_volume() -> str:
    """Return the patches that add the volume with the token, as the first one."""
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": VOLUME}
    volume = {"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}
    first = patch('"/spec/volumes/0"', quote(volume))
    only = patch('"/spec/volumes"', quote([volume]))
    named = f"object.spec.volumes.exists(v, v.name == {quote(VOLUME)})"
    return f"!has(object.spec.volumes) ? [{only}] : {named} ? [] : [{first}]"


def add_to_each(field: str) -> str:
    """Return the patches that add variables and the mount to each container of a list."""
    added = {"env": add_variables(), "volumeMounts": add_mount()}
    return " + ".join(
        f"object.spec.?{field}.orValue([]).transformList(i, c, {patch(place(field, inner), value)})"
        for inner, value in added.items()
    )


def place(field: str, inner: str) -> str:
    """Return the path of a field of the container `i`."""
    return f'"/spec/{field}/" + string(i) + "/{inner}"'


def add_variables() -> str:
    """Return a container's variables and those that it lacks."""
    had = "c.?env.orValue([])"
    parts = [had]
    for group in VARIABLES:
        new = [{"name": name, "value": value} for name, value in group.items()]
        parts.append(f"({had}.exists(e, e.name in {quote(list(group))}) ? [] : {quote(new)})")
    return " + ".join(parts)


def add_mount() -> str:
    """Return a container's mounts, and that of the token if it is not among them."""
    had = "c.?volumeMounts.orValue([])"
    mount = {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}
    named = f"m.name == {quote(VOLUME)}"
    return f"{had} + ({had}.exists(m, {named}) ? [] : [{quote(mount)}])"


# --- Waiting for it -----------------------------------------------------------------------------


def wait_for_injection(site: Site) -> None:
    """Wait until a pod that is only tried out would get what it needs."""
    accounts = list_accounts(site.roles.values())
    look = partial(look_for_injection, site.cluster, accounts)
    wait_until(look, what="the admission policy of Pod Identity", timeout=SEEN_SECONDS)


def look_for_injection(cluster: Cluster, accounts: list[str]) -> None:
    """Raise NotYet until a pod of each account would have the token."""
    for account in accounts:
        pod = try_pod(cluster, account)
        if not any(one["name"] == VOLUME for one in pod["spec"].get("volumes", ())):
            raise NotYet(f"a pod of {account} would have no token")


def try_pod(cluster: Cluster, account: str) -> dict[str, Any]:
    """Return a pod of the account as the API server would store it. Raises NotYet if it refuses."""
    tried = trial_pod(account)
    dry = ("create", "--dry-run=server", "--output", "json", "--filename", "-")
    try:
        made: dict[str, Any] = json.loads(cluster.kubectl(*dry, stdin=json.dumps(tried)))
    except LabError as error:
        raise NotYet(error.what) from error
    return made


def trial_pod(account: str) -> dict[str, Any]:
    """Return a pod that meets the standard `restricted`; it is never made."""
    limits = {"cpu": "1m", "memory": "1Mi"}
    container = {
        "name": "trial",
        "image": "none",
        "resources": {"requests": limits, "limits": limits},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    inner = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "trial-", "namespace": AIRFLOW},
        "spec": {
            "serviceAccountName": account,
            "securityContext": inner,
            "containers": [container],
        },
    }
