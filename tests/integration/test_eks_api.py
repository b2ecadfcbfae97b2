"""EKS's objects, tried on a real API server: that of a lab on kind, which stores none of them.

All are new there, in namespaces of the test's own: the lab's objects of the same names could not be
changed into EKS's, and would hide mistakes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import yaml

from lab.cluster.api import Cluster
from lab.errors import LabError
from tests.support.control import Control
from tests.support.control.pods import Pods
from tests.support.promotion import ALL, CUSTOM
from tests.support.renderings import Object, eks_objects, eks_pods, namespace_of

pytestmark = [pytest.mark.kind, pytest.mark.parametrize("lab_backend", ["kind"], indirect=True)]

SECONDS = 120
OWN = "eks-"  # prefix of the test's namespaces, before the name that they have on EKS
NOWHERE = {"Namespace", "StorageClass"}  # kinds of objects without a namespace


@pytest.fixture(scope="module")
def api(control: Control) -> Iterator[Cluster]:
    """Yield the API of the lab's cluster, with EKS's namespaces and accounts under other names."""
    assert isinstance(control, Pods)
    cluster = control.cluster
    kinds = {"Namespace", "ServiceAccount"}
    there = [
        move_to_own_namespace(o) for o in eks_objects("high-availability") if o["kind"] in kinds
    ]
    names = [o["metadata"]["name"] for o in there if o["kind"] == "Namespace"]
    run_kubectl(cluster, there, "apply")
    for name in names:  # the account of pods that name none; a controller creates it
        account = ("--for=create", "serviceaccount/default", "--timeout=60s")
        cluster.kubectl("wait", *account, "--namespace", name, timeout=SECONDS)
    yield cluster
    cluster.kubectl("delete", "namespace", *names, "--ignore-not-found", timeout=SECONDS)


def move_to_own_namespace(entry: Object) -> Object:
    """Return a copy of the object in the test's own namespace, or as that namespace."""
    found = copy.deepcopy(entry)
    if entry["kind"] == "Namespace":
        found["metadata"]["name"] = OWN + entry["metadata"]["name"]
    elif entry["kind"] not in NOWHERE:
        found["metadata"]["namespace"] = OWN + namespace_of(entry)
    return found


def run_kubectl(cluster: Cluster, found: Iterable[Object], *words: str) -> list[str]:
    """Pass the objects to kubectl and return the names that it printed.

    Raises LabError with what the API server said.
    """
    text = yaml.safe_dump_all(found)
    flags = ("--validate=strict", "--output=name", "--filename", "-")
    return cluster.kubectl(*words, *flags, timeout=SECONDS, stdin=text).splitlines()


def dry_run(cluster: Cluster, found: Iterable[Object]) -> list[str]:
    """Return the names of the objects that the API server would take; it stores none."""
    return run_kubectl(cluster, found, "create", "--dry-run=server")


def list_new_objects(options: Iterable[str]) -> list[Object]:
    """List the objects that are new for the test, of the kinds that the API server has."""
    there = CUSTOM | {"Namespace", "ServiceAccount"}
    return [move_to_own_namespace(o) for o in eks_objects(*options) if o["kind"] not in there]


def build_pods(options: Iterable[str]) -> list[Object]:
    """Return each pod that a controller would create, as one that nothing controls."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"pod-{number}",
                "namespace": OWN + found.namespace,
                "labels": dict(found.labels),
            },
            "spec": with_claimed_volumes(found.spec),
        }
        for number, found in enumerate(eks_pods(*options))
    ]


def with_claimed_volumes(spec: Object) -> Object:
    """Return the pod's spec with an emptyDir for each volume that a StatefulSet would claim."""
    mounts = [mount for c in spec["containers"] for mount in c.get("volumeMounts") or []]
    known = {volume["name"] for volume in spec.get("volumes") or []}
    claimed = sorted({mount["name"] for mount in mounts} - known)
    volumes = [{"name": name, "emptyDir": {}} for name in claimed]
    return {**spec, "volumes": [*(spec.get("volumes") or []), *volumes]}


@pytest.mark.parametrize("options", [(), ALL], ids=["no-option", "every-option"])
def test_the_api_server_takes_every_object(api: Cluster, options: tuple[str, ...]) -> None:
    wanted = list_new_objects(options)
    assert len(wanted) > 30
    assert len(dry_run(api, wanted)) == len(wanted)


@pytest.mark.parametrize("options", [(), ALL], ids=["no-option", "every-option"])
def test_no_pod_is_refused_as_not_restricted(api: Cluster, options: tuple[str, ...]) -> None:
    wanted = build_pods(options)
    assert len(wanted) >= 9
    assert len(dry_run(api, wanted)) == len(wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostNetwork": True}, "violates PodSecurity"),
        ({"securityContext": {"runAsUser": 0}}, "violates PodSecurity"),
        ({"serviceAccountName": "nobody"}, "serviceaccount"),
        ({"hostNetworks": True}, "unknown field"),
    ],
    ids=str,
)
def test_a_pod_that_may_not_be_is_refused(api: Cluster, change: dict[str, Any], said: str) -> None:
    wrong = next(p for p in build_pods(()) if p["metadata"]["namespace"] == f"{OWN}airflow")
    wrong["spec"] = {**wrong["spec"], **change}
    with pytest.raises(LabError, match=said):
        dry_run(api, [wrong])


def test_nothing_of_it_was_stored(api: Cluster) -> None:
    dry_run(api, list_new_objects(ALL))
    left = api.kubectl("get", "pods,deployments,pvc", "--namespace", f"{OWN}airflow", "-o", "name")
    assert not left.split()
    assert "efs-steps" not in api.kubectl("get", "storageclass", "--output", "name")
