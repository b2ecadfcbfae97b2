"""What EKS gets, shown to a real API server: that of a lab on kind, which stores none of it.

Everything is new there, in namespaces of the test's own: what a lab has of the same name could not
be changed into what EKS has, and would hide a mistake.
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

pytestmark = [pytest.mark.kind, pytest.mark.parametrize("lab_config", ["kind"], indirect=True)]

SECONDS = 120
OWN = "eks-"  # what the test's namespaces are called, before the name that they have on EKS
NOWHERE = {"Namespace", "StorageClass"}  # kinds of objects that are in no namespace


@pytest.fixture(scope="module")
def api(control: Control) -> Iterator[Cluster]:
    """The API of the lab's cluster, with EKS's namespaces and accounts under names of their own."""
    assert isinstance(control, Pods)
    cluster = control.cluster
    kinds = {"Namespace", "ServiceAccount"}
    there = [moved(o) for o in eks_objects("high-availability") if o["kind"] in kinds]
    names = [o["metadata"]["name"] for o in there if o["kind"] == "Namespace"]
    tell(cluster, there, "apply")
    for name in names:  # what pods without an account have; a controller makes it
        account = ("--for=create", "serviceaccount/default", "--timeout=60s")
        cluster.kubectl("wait", *account, "--namespace", name, timeout=SECONDS)
    yield cluster
    cluster.kubectl("delete", "namespace", *names, "--ignore-not-found", timeout=SECONDS)


def moved(entry: Object) -> Object:
    """The object in the test's own namespace, or as that."""
    found = copy.deepcopy(entry)
    if entry["kind"] == "Namespace":
        found["metadata"]["name"] = OWN + entry["metadata"]["name"]
    elif entry["kind"] not in NOWHERE:
        found["metadata"]["namespace"] = OWN + namespace_of(entry)
    return found


def tell(cluster: Cluster, found: Iterable[Object], *words: str) -> list[str]:
    """The names that kubectl printed. Raises LabError with what the API server said."""
    text = yaml.safe_dump_all(found)
    flags = ("--validate=strict", "--output=name", "--filename", "-")
    return cluster.kubectl(*words, *flags, timeout=SECONDS, stdin=text).splitlines()


def shown(cluster: Cluster, found: Iterable[Object]) -> list[str]:
    """The names of the objects that the API server would take; it stores none."""
    return tell(cluster, found, "create", "--dry-run=server")


def new(options: Iterable[str]) -> list[Object]:
    """All that is not there for the test already, and is of a kind that the API server has."""
    there = CUSTOM | {"Namespace", "ServiceAccount"}
    return [moved(o) for o in eks_objects(*options) if o["kind"] not in there]


def as_pods(options: Iterable[str]) -> list[Object]:
    """Each pod that something would make, made by nobody."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"pod-{number}",
                "namespace": OWN + found.namespace,
                "labels": dict(found.labels),
            },
            "spec": with_claims(found.spec),
        }
        for number, found in enumerate(eks_pods(*options))
    ]


def with_claims(spec: Object) -> Object:
    """The pod with something in the place of the volumes that a StatefulSet would claim for it."""
    mounts = [mount for c in spec["containers"] for mount in c.get("volumeMounts") or []]
    known = {volume["name"] for volume in spec.get("volumes") or []}
    claimed = sorted({mount["name"] for mount in mounts} - known)
    volumes = [{"name": name, "emptyDir": {}} for name in claimed]
    return {**spec, "volumes": [*(spec.get("volumes") or []), *volumes]}


@pytest.mark.parametrize("options", [(), ALL], ids=["no-option", "every-option"])
def test_the_api_server_takes_every_object(api: Cluster, options: tuple[str, ...]) -> None:
    wanted = new(options)
    assert len(wanted) > 30
    assert len(shown(api, wanted)) == len(wanted)


@pytest.mark.parametrize("options", [(), ALL], ids=["no-option", "every-option"])
def test_no_pod_is_refused_as_not_restricted(api: Cluster, options: tuple[str, ...]) -> None:
    wanted = as_pods(options)
    assert len(wanted) >= 9
    assert len(shown(api, wanted)) == len(wanted)


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
    wrong = next(p for p in as_pods(()) if p["metadata"]["namespace"] == f"{OWN}airflow")
    wrong["spec"] = {**wrong["spec"], **change}
    with pytest.raises(LabError, match=said):
        shown(api, [wrong])


def test_nothing_of_it_was_stored(api: Cluster) -> None:
    shown(api, new(ALL))
    left = api.kubectl("get", "pods,deployments,pvc", "--namespace", f"{OWN}airflow", "-o", "name")
    assert not left.split()
    assert "efs-steps" not in api.kubectl("get", "storageclass", "--output", "name")
