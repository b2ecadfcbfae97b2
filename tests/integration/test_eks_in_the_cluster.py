"""What `eks` does in a cluster, tried in the lab's own cluster on kind."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from eks import environment, identity, prerequisites, release, site, verify
from eks.rendering import AwsOutputs
from eks.site import Site
from lab.backends.kind import backend as kind
from lab.backends.kind import injection
from lab.cluster import forward, workloads
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW, API_SERVER, STORES
from lab.config import KIT, TABLE_DAG
from lab.errors import AccessError, NameTaken, PromotionError, StaticKey
from lab.lab import Lab
from lab.progress import silent_phase
from tests.support.control import Control

pytestmark = [pytest.mark.kind, pytest.mark.parametrize("lab_backend", ["kind"], indirect=True)]

OF_AN_OPTION = f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: of-an-option
  namespace: {AIRFLOW}
  labels:
    {release.LABEL}: staging
spec:
  podSelector:
    matchLabels: {{nobody: has-this}}
  policyTypes: [Egress]
"""


# As Amazon's add-on makes it, for no node.
AMAZONS_NETWORK = """
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: aws-node
  namespace: kube-system
spec:
  selector:
    matchLabels: {{k8s-app: aws-node}}
  template:
    metadata:
      labels: {{k8s-app: aws-node}}
    spec:
      nodeSelector: {{nobody: has-this}}
      containers:
        - name: aws-node
          image: busybox:1
        - name: aws-eks-nodeagent
          image: busybox:1
          args: [--enable-ipv6=false, --enable-network-policy={switch}]
"""


@pytest.fixture
def api(cluster: Cluster) -> Cluster:
    """Return the API of the lab's cluster."""
    return cluster


def test_no_pod_of_a_lab_could_read_a_static_key(api: Cluster) -> None:
    verify.refuse_keys(api)


@pytest.fixture
def planted(api: Cluster) -> Iterator[str]:
    """Put a static key where a step's pods could read it, and return it; take it away again."""
    secret = secrets.token_urlsafe(24)
    api.write_secret(AIRFLOW, "planted", {"AWS_SECRET_ACCESS_KEY": secret})
    pod = injection.trial_pod("airflow-step")  # without an image: it never starts
    pod["metadata"] = {"name": "planted", "namespace": AIRFLOW}
    pod["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "planted"}}]
    api.kubectl("create", "--filename", "-", stdin=json.dumps(pod))
    yield secret
    api.kill_pod(AIRFLOW, "planted")
    api.kubectl("delete", "secret/planted", "--namespace", AIRFLOW)


def test_a_planted_key_is_found(api: Cluster, control: Control, planted: str) -> None:
    said = "planted: Secret planted, as variable AWS_SECRET_ACCESS_KEY"
    with pytest.raises(StaticKey) as refused:
        verify.refuse_keys(api)
    assert said in refused.value.what
    assert planted not in refused.value.what
    (found,) = [one for one in kind.examine(control.config) if one.name == "static keys"]
    assert found.error
    assert said in found.error.what


def test_pods_without_an_identity_are_named(api: Cluster) -> None:
    """Every pod of an account that has a role was given one; the API server's has none here."""
    verify.refuse_missing_identity(api, identity.service_accounts(environment.load("staging")))
    with pytest.raises(PromotionError, match="no identity to airflow-api-server-"):
        verify.refuse_missing_identity(api, ["airflow-api-server"])


def test_a_cluster_without_nodes_for_airflow_is_refused(api: Cluster, adopted: Site) -> None:
    with pytest.raises(PromotionError, match="no node of the cluster has the label"):
        prerequisites.check_adopted(adopted.environment, api)


@pytest.mark.usefixtures("labelled")
def test_what_a_cluster_that_is_there_lacks_is_said(api: Cluster, adopted: Site) -> None:
    """kind's network enforces policies, or not, without a DaemonSet that is known for it."""
    said = prerequisites.check_adopted(adopted.environment, api)
    assert any("mlops-lab/role=steps now" in line for line in said)
    assert any("enforces network policies" in line for line in said)
    assert prerequisites.check_adopted(environment.load("staging"), api) == [], "an apply makes it"


@pytest.mark.usefixtures("labelled")
@pytest.mark.parametrize("switch", ["true", "false"])
def test_policies_that_amazons_agent_ignores_are_refused(
    api: Cluster, adopted: Site, switch: str
) -> None:
    with existing(api, AMAZONS_NETWORK.format(switch=switch)):
        if switch == "true":
            said = prerequisites.check_adopted(adopted.environment, api)
            assert not any("network policies" in line for line in said)
        else:
            with pytest.raises(PromotionError, match="network policies have no effect"):
                prerequisites.check_adopted(adopted.environment, api)


@pytest.fixture
def adopted(staging: Site) -> Site:
    """Return staging on a cluster that no apply has made."""
    return replace(staging, environment=replace(staging.environment, make_cluster=False))


@pytest.fixture
def labelled(api: Cluster) -> Iterator[None]:
    """Have the node be one for Airflow."""
    api.kubectl("label", "node", "--all", "mlops-lab/role=airflow")
    yield
    api.kubectl("label", "node", "--all", "mlops-lab/role-")


@contextmanager
def existing(api: Cluster, manifest: str) -> Iterator[None]:
    """Have the objects exist while the block runs."""
    api.kubectl("apply", "--filename", "-", stdin=manifest)
    try:
        yield
    finally:
        api.kubectl("delete", "--filename", "-", stdin=manifest)


@pytest.fixture
def staging(tmp_path: Path) -> Site:
    return site.create_site(environment.load("staging"), tmp_path, KIT)


def test_namespaces_of_somebody_elses_are_not_taken_over(api: Cluster, staging: Site) -> None:
    with pytest.raises(NameTaken) as refused:
        release.refuse_foreign(staging, api, release.render_manifests(staging, AwsOutputs()))
    assert "Namespace/airflow" in refused.value.what


def test_nothing_of_somebody_elses_is_removed(api: Cluster, staging: Site) -> None:
    before = release.owners_by_name(api, "namespace,storageclass")
    release.clear_namespaces(staging, api)
    assert release.owners_by_name(api, "namespace,storageclass") == before
    assert workloads.is_serving(api, API_SERVER)


def test_a_way_that_only_an_option_needed_is_closed_again(api: Cluster, staging: Site) -> None:
    before = release.owners_by_name(api, "networkpolicy", "--namespace", AIRFLOW)
    api.apply(OF_AN_OPTION)
    assert release.owners_by_name(api, "networkpolicy", "--namespace", AIRFLOW) != before
    release.prune(staging, api, OF_AN_OPTION)
    assert release.owners_by_name(api, "networkpolicy", "--namespace", AIRFLOW) != before
    release.prune(staging, api, "")
    assert release.owners_by_name(api, "networkpolicy", "--namespace", AIRFLOW) == before


def test_what_an_option_needs_beforehand_is_asked_for(api: Cluster) -> None:
    bare = environment.load("staging")
    prerequisites.check(bare, api)
    options = ("rds", "ingress", "external-secrets")
    with pytest.raises(PromotionError) as refused:
        prerequisites.check(replace(bare, options=options), api)
    for what in (
        "rds: configmap/rds-ca",
        "ingressclass/alb",
        "externalsecrets.external-secrets.io",
    ):
        assert what in refused.value.what
    where = ("--namespace", AIRFLOW)
    api.kubectl("create", "configmap", "rds-ca", *where, "--from-literal=global-bundle.pem=none")
    try:
        prerequisites.check(replace(bare, options=("rds",)), api)
    finally:
        api.kubectl("delete", "configmap", "rds-ca", *where)


def test_a_secret_that_is_another_one_is_seen(api: Cluster) -> None:
    api.write_secret(AIRFLOW, "rotated", {"token": "one"})
    try:
        before = release.read_secret_versions(api)
        api.write_secret(AIRFLOW, "rotated", {"token": "one"})
        assert release.read_secret_versions(api) == before
        api.write_secret(AIRFLOW, "rotated", {"token": "two"})
        assert release.read_secret_versions(api) != before
        assert "two" not in release.read_secret_versions(api)
        assert "rotated" in before
    finally:
        api.kubectl("delete", "secret", "rotated", "--namespace", AIRFLOW)


def test_random_secrets_of_a_cluster_stay_what_they_are(
    api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SYNC_USERNAME", "me")
    monkeypatch.setenv("GIT_SYNC_PASSWORD", "my-token")
    staging = environment.load("staging")
    wanted = release.build_secrets(staging, api)
    names = ("airflow-fernet-key", "airflow-jwt-secret", "airflow-api-secret-key")
    for name in names:
        assert wanted[AIRFLOW, name] == api.read_secret(AIRFLOW, name)
    assert wanted[STORES, "postgresql"] == api.read_secret(STORES, "postgresql")
    assert wanted[AIRFLOW, "git-credentials"]["GIT_SYNC_PASSWORD"] == "my-token"
    assert "my-token" in wanted[AIRFLOW, "pipelines-credentials"]["connection"]
    assert (STORES, "role-keys") not in wanted


def test_a_given_secret_is_kept_by_the_cluster(
    api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_SYNC_USERNAME", "GIT_SYNC_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    held = api.read_secret(AIRFLOW, "git-credentials") or {}
    wanted = release.build_secrets(environment.load("staging"), api)
    assert wanted[AIRFLOW, "git-credentials"] == held


def test_the_same_proof_runs_against_a_forwarded_airflow(
    lab: Lab,
    api: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on EKS, no pod of the run holds a key: each is searched while it is there."""
    looked: list[Cluster] = []
    refuse = verify.refuse_keys

    def refuse_and_count(cluster: Cluster) -> None:
        looked.append(cluster)
        refuse(cluster)

    monkeypatch.setattr(verify, "refuse_keys", refuse_and_count)
    log = tmp_path_factory.mktemp("forward") / "forward.log"
    with forward.forwarding(api.kubeconfig, API_SERVER, log, 60) as url:
        proof = verify.run_and_prove(replace(lab, airflow_url=url), api, TABLE_DAG, silent_phase)
    assert proof.run_id == lab.runs_of(TABLE_DAG)[0].id
    assert len(looked) >= 3  # at least once while each of its tasks ran


def test_a_wrong_account_is_refused_through_the_forward(
    lab: Lab, api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("forward") / "forward.log"
    with (
        forward.forwarding(api.kubeconfig, API_SERVER, log, 60) as url,
        pytest.raises(AccessError),
    ):
        verify.run_and_prove(
            replace(lab, airflow_url=url, airflow_password="no"), api, TABLE_DAG, silent_phase
        )
