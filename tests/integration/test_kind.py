"""What holds for a lab on kind alone; `tests/e2e` and `tests/faults` test what holds for each."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from lab.backends.kind import backend as kind
from lab.backends.kind import node
from lab.cluster import chart, workloads
from lab.cluster.api import Cluster
from lab.errors import LabError, NotRunningError
from lab.home import processes
from lab.lab import Lab
from lab.wait import NotYet, wait_until
from tests.support.control.pods import Pods
from tests.support.probes import sleeping_pod

DAG = "dataset_pipeline"
SECONDS = 240
IN_AIRFLOW, AS_JSON = ("--namespace", workloads.AIRFLOW), ("--output", "json")
FROM_INPUT = ("--filename", "-")

pytestmark = [pytest.mark.kind, pytest.mark.parametrize("lab_backend", ["kind"], indirect=True)]


def list_objects(cluster: Cluster, *kinds: str) -> list[dict[str, Any]]:
    shown = cluster.kubectl("get", ",".join(kinds), "--all-namespaces", "--output", "json")
    items: list[dict[str, Any]] = json.loads(shown)["items"]
    return [item for item in items if item["metadata"]["namespace"] in ("airflow", "stores")]


@pytest.mark.parametrize("namespace", ["airflow", "stores"])
def test_the_api_server_refuses_a_pod_that_is_not_restricted(
    lab: Lab, cluster: Cluster, namespace: str
) -> None:
    container = {"name": "root", "image": "busybox:1", "securityContext": {"privileged": True}}
    manifest = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "root", "namespace": namespace},
            "spec": {"containers": [container]},
        }
    )
    with pytest.raises(LabError, match='violates PodSecurity "restricted'):
        cluster.kubectl("create", "--dry-run=server", "--filename", "-", stdin=manifest)


def test_no_second_server_writes_to_the_database_s_files(lab: Lab, cluster: Cluster) -> None:
    """Deleted by force, a pod's server may end only after the next pod's has started."""
    lock = "/var/lib/postgresql/data/lock"
    said = f"flock --nonblock {lock} echo free || echo held"
    assert cluster.execute(workloads.STORES, "postgresql-0", ["sh", "-c", said]) == "held\n"


def test_a_second_up_changes_nothing(lab: Lab, pods: Pods) -> None:
    def read_state() -> dict[str, object]:
        kinds = ("statefulsets", "deployments", "services", "pvc", "configmaps", "networkpolicies")
        found = {
            f"{o['kind']}/{o['metadata']['name']}": o["metadata"].get("generation")
            or o["metadata"]["resourceVersion"]
            for o in list_objects(pods.cluster, *kinds)
        }
        serving = [p["metadata"]["uid"] for p in list_objects(pods.cluster, "pods")]
        return found | {"pods": sorted(serving), "data": lab.history()}

    before = read_state()
    assert kind.up(replace(pods.config, dataset=None)) == lab
    assert read_state() == before
    assert len(chart.list_release_secrets(pods.cluster, "status=deployed")) == 1
    assert not chart.list_release_secrets(pods.cluster, "status=superseded")


def test_a_forward_that_breaks_is_mended_by_itself(lab: Lab, pods: Pods) -> None:
    for workload in workloads.DOORS:
        supervisor = processes.find_process(pods.config, workload.name)
        assert supervisor
        for child in supervisor.children(recursive=True):
            child.send_signal(signal.SIGKILL)
    wait_until(partial(expect_answers, lab), what="each server", timeout=120)


def expect_answers(lab: Lab) -> None:
    """Raise NotYet until every server answers."""
    try:
        lab.verify()
    except LabError as error:
        raise NotYet(error.what) from error


def test_what_was_logged_is_there_when_the_pod_is_not(lab: Lab, pods: Pods) -> None:
    run = lab.run(DAG)
    assert not pods.list_parts()
    assert "Deleting pod" in lab.log(run, "push_data")


def test_the_steps_may_not_ask_kubernetes_for_anything(lab: Lab, cluster: Cluster) -> None:
    account = "--as=system:serviceaccount:airflow:airflow-step"
    shown = cluster.kubectl("auth", "can-i", "--list", account, "--namespace", "airflow")
    asked = [line.split()[0] for line in shown.splitlines()[1:] if line and line[0] != " "]
    assert not [name for name in asked if name in ("pods", "secrets", "configmaps", "*.*")]


def test_a_step_s_pod_goes_with_its_template_and_not_before(cluster: Cluster) -> None:
    """As the library makes it: its owner is the PodTemplate (runtimes/pod.py, `owner_of`)."""
    origin = json.loads(cluster.kubectl("get", "podtemplate", "step", *IN_AIRFLOW, *AS_JSON))
    copy = {**origin, "metadata": {"name": "of-a-test", "namespace": workloads.AIRFLOW}}
    made = json.loads(cluster.kubectl("create", *FROM_INPUT, *AS_JSON, stdin=json.dumps(copy)))
    uids = {"of-a-test-owned": made["metadata"]["uid"], "of-a-test-orphan": "0" * 36}
    try:
        for name, uid in uids.items():
            owner = {"apiVersion": "v1", "kind": "PodTemplate", "name": "of-a-test", "uid": uid}
            pod = sleeping_pod(origin["template"], name)
            pod["metadata"]["ownerReferences"] = [owner]
            pod["metadata"]["labels"]["of"] = "a-test"
            cluster.kubectl("create", *FROM_INPUT, stdin=json.dumps(pod))
        expect_pods(cluster, {"of-a-test-owned"})  # the collector has looked at both by then
        cluster.kubectl("wait", "--for=condition=Ready", "pod/of-a-test-owned", *IN_AIRFLOW)
    finally:
        cluster.kubectl("delete", "podtemplate", "of-a-test", *IN_AIRFLOW)
    expect_pods(cluster, set())


def expect_pods(cluster: Cluster, names: set[str]) -> None:
    """Wait until these pods of the test are there, and no other one of it."""

    def look() -> None:
        shown = cluster.kubectl("get", "pods", "--selector", "of=a-test", *IN_AIRFLOW, *AS_JSON)
        found = {pod["metadata"]["name"] for pod in json.loads(shown)["items"]}
        if found != names:
            raise NotYet(f"there are {sorted(found)}")

    wait_until(look, what=f"the pods {sorted(names)}", timeout=120)


def test_what_no_service_takes_is_refused_and_leaves_no_node(pods: Pods) -> None:
    check_strays_are_refused(pods)


def check_strays_are_refused(pods: Pods) -> None:
    """Raise unless connections to a Service address that no Service has are refused at once.

    One is opened from a pod, one from the node.
    """
    address = str(ip_network(node.SERVICES)[-2])
    ask = f"import socket; socket.create_connection(({address!r}, 9000), 10)"
    with pytest.raises(LabError, match="ConnectionRefusedError"):
        pods.cluster.execute(workloads.AIRFLOW, "airflow-scheduler-0", ["python", "-c", ask])
    with pytest.raises(LabError, match="Connection refused"):
        node.run_inside(pods.config, "bash", "-c", f"exec 3<>/dev/tcp/{address}/9000")


def test_down_keeps_the_data_and_up_brings_it_back(lab: Lab, pods: Pods) -> None:
    before = lab.history()
    assert kind.down(pods.config) >= 1
    assert node.read_state(pods.config) == "exited"
    with pytest.raises(NotRunningError, match="no minio, gitea"):
        kind.connect(pods.config)
    again = kind.up(replace(pods.config, dataset=None))
    assert again == lab
    assert lab.history() == before
    check_strays_are_refused(pods)
    run = lab.run(DAG)
    assert lab.dataset().trailers["Run-Id"] == run.id
