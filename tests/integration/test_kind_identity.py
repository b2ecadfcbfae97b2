"""The way to credentials on kind: what EKS has, in a whole lab; no pod holds a key of S3."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from eks.difference import diff_values
from eks.rendering import render_eks
from lab.backends.kind import backend as kind
from lab.backends.kind import injection
from lab.client import runs
from lab.cluster import workloads
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW, STORES
from lab.lab import Lab
from lab.layout import BUCKET
from tests.support import webhook
from tests.support.control.pods import Pods
from tests.support.dag_runs import requested_run_ids
from tests.support.needs import need_renderers
from tests.support.probes import Probe, probing, read_template, run_in_each
from tests.support.renderings import staging, temporary_home

DAG = "dataset_pipeline"
AUDIENCE = "pods.eks.amazonaws.com"
ISSUER_KEY = "/etc/kubernetes/pki/sa.key"  # in the node; it signs the tokens of accounts
SECONDS = 180

pytestmark = [pytest.mark.kind, pytest.mark.parametrize("lab_backend", ["kind"], indirect=True)]

# Prints, by name, whether S3 allows each call. A refusal is AccessDenied or, of a HEAD, 403.
CALLS = """
import json, sys, boto3
from botocore.exceptions import ClientError
s3 = boto3.client("s3")
def tell(name, call, **more):
    try:
        call(**more)
        said[name] = "allowed"
    except ClientError as error:
        code = error.response["Error"]["Code"]
        said[name] = "refused" if code in ("AccessDenied", "403") else code
said = {}
for place in json.loads(sys.argv[1]):
    bucket, prefix = place.split("/")
    where = {"Bucket": bucket, "Key": prefix + "/of-a-test"}
    tell("write " + place, s3.put_object, **where, Body=b"of a test")
    tell("read " + place, s3.get_object, **where)
    tell("list " + place, s3.list_objects_v2, Bucket=bucket, Prefix=prefix + "/")
    tell("head " + place, s3.head_object, Bucket=bucket, Key=prefix + "/absent")
    tell("delete " + place, s3.delete_object, **where)
    tell("delete a version of " + place, s3.delete_object, **where, VersionId="null")
print(json.dumps(said))
"""
FILES = """
import json, s3fs
fs = s3fs.S3FileSystem()
fs.pipe("lab-datasets/store/of-s3fs", b"of a test")
said = [fs.cat("lab-datasets/store/of-s3fs").decode(), fs.exists("lab-datasets/store/absent")]
for call in (lambda: fs.ls("lab-datasets/landing/"), lambda: fs.pipe("lab-datasets/logs/x", b"")):
    try:
        call()
        said.append("allowed")
    except PermissionError:
        said.append("refused")
print(json.dumps(said))
"""
VERSIONS = """
import json, os, pathlib, subprocess, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
file = folder / "a.csv"
own = {f"DVC_{name}_DIR": str(folder / name) for name in ("SITE_CACHE", "GLOBAL_CONFIG")}
def dvc(*words):
    done = subprocess.run(["dvc", *words], cwd=folder, env={**os.environ, **own},
                          capture_output=True, text=True)
    return done.returncode and done.stderr
file.write_text("of a test")
said = [dvc("init", "--no-scm", "-q"), dvc("remote", "add", "-d", "r", "s3://lab-datasets/store"),
        dvc("add", "-q", "a.csv"), dvc("push", "-q")]
file.unlink()
subprocess.run(["rm", "-r", folder / ".dvc" / "cache"])
said += [dvc("pull", "-q"), file.read_text()]
said.append(dvc("remote", "add", "elsewhere", "s3://lab-datasets/landing"))
said.append(dvc("push", "-q", "-r", "elsewhere"))
print(json.dumps(said))
"""
# By obstore, whose way to credentials is its own and none of botocore's.
IN_RUST = """
import json, os
from obstore.exceptions import PermissionDeniedError
from obstore.store import S3Store
store = S3Store("lab-datasets", endpoint=os.environ["AWS_ENDPOINT_URL_S3"],
                region=os.environ["AWS_REGION"], client_options={"allow_http": True})
store.put("store/of-obstore", b"of a test")
said = [bytes(store.get("store/of-obstore").bytes()).decode()]
try:
    store.put("landing/of-obstore", b"")
    said.append("allowed")
except PermissionDeniedError:
    said.append("refused")
print(json.dumps(said))
"""
PLUGIN = """
import json, lab_bucket
from botocore.exceptions import ClientError
lab_bucket.write("results/of-a-test", b"written")
said = [lab_bucket.read("results/of-a-test").decode(), lab_bucket.read("results/absent")]
for call in (lambda: lab_bucket.write("store/x", b""), lambda: lab_bucket.listing("logs/")):
    try:
        call()
        said.append("allowed")
    except ClientError as error:
        said.append(error.response["Error"]["Code"])
print(json.dumps(said))
"""
# Asks the agent with each token of the standard input; prints statuses and answers.
ASK = """
import json, sys, urllib.error, urllib.request
said = []
for token in json.load(sys.stdin):
    asked = urllib.request.Request(
        "http://169.254.170.23/v1/credentials", headers={"Authorization": token})
    try:
        said.append([urllib.request.urlopen(asked, timeout=5).status, ""])
    except urllib.error.HTTPError as error:
        said.append([error.code, error.read().decode()])
print(json.dumps(said))
"""
NO_CREDENTIALS = """
import json, boto3
print(json.dumps(boto3.Session().get_credentials() is None))
"""
# Eight requests at a moment in time; prints the status and the seconds of each.
AT_ONCE = """
import json, os, sys, time, urllib.request
from concurrent.futures import ThreadPoolExecutor
token = open(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read()
def ask(_):
    asked = urllib.request.Request(
        os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers={"Authorization": token})
    began = time.monotonic()
    status = urllib.request.urlopen(asked, timeout=10).status
    return status, round(time.monotonic() - began, 3)
with ThreadPoolExecutor(8) as pool:
    time.sleep(max(0, float(sys.argv[1]) - time.time()))
    print(json.dumps(list(pool.map(ask, range(8)))))
"""
# Prints how often the SDK has fetched credentials for some calls to S3, and how long they last.
FETCHES = """
import json, boto3
from datetime import datetime, timezone
from botocore.utils import ContainerMetadataFetcher
fetch, found = ContainerMetadataFetcher.retrieve_full_uri, []
def count(*arguments, **named):
    found.append(fetch(*arguments, **named))
    return found[-1]
ContainerMetadataFetcher.retrieve_full_uri = count
s3 = boto3.client("s3")
for _ in range(5):
    s3.list_objects_v2(Bucket="lab-datasets", Prefix="store/", MaxKeys=1)
ends = datetime.fromisoformat(found[0]["Expiration"].replace("Z", "+00:00"))
print(json.dumps([len(found), (ends - datetime.now(timezone.utc)).total_seconds()]))
"""


@pytest.fixture(scope="module")
def step(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Probe]:
    """Start a pod of the steps' service account, for all tests here."""
    control = request.getfixturevalue("control")
    with probing(control.cluster, "probe-step") as (found,):
        yield found


# --- What a pod is given ------------------------------------------------------------------------


def store_dry(cluster: Cluster, pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod as the API server would store it, without what each pod has of its own."""
    dry = ("create", "--dry-run=server", "--output", "json", "--filename", "-")
    made: dict[str, Any] = json.loads(cluster.kubectl(*dry, stdin=json.dumps(pod)))
    own = ("uid", "creationTimestamp", "name", "generateName")
    metadata = {key: value for key, value in made["metadata"].items() if key not in own}
    return {**made, "metadata": metadata}


def pod_of(template: dict[str, Any]) -> dict[str, Any]:
    """Return a pod of a template, as the library makes one."""
    metadata = {**template["metadata"], "generateName": "trial-", "namespace": AIRFLOW}
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}


def render_templates() -> dict[str, dict[str, Any]]:
    """Return EKS's PodTemplates by name, in the region that kind's pods are told."""
    with temporary_home() as config:
        there = replace(staging(), region=webhook.REGION)
        found = render_eks(there, config, config.run).objects()
    templates = [entry for entry in found if entry["kind"] == "PodTemplate"]
    return {entry["metadata"]["name"]: entry["template"] for entry in templates}


# What the pod of a step on EKS, with what the webhook adds, may have otherwise than on kind.
ALLOWED = {"spec.containers[base].image": "the registry, and the digest there"}


def test_a_step_s_pod_is_eks_s_but_for_its_image(lab: Lab, cluster: Cluster) -> None:
    need_renderers()
    for name, template in render_templates().items():
        here = store_dry(cluster, pod_of(read_template(cluster, name)))
        there = store_dry(cluster, webhook.add_identity(pod_of(template)))
        found = {field for field, _, _ in diff_values("", here, there)}
        assert found - {"metadata.labels.mlops-lab/environment"} == set(ALLOWED), name


def with_one(container: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a trial pod whose only container has more than usual."""
    pod = injection.trial_pod("airflow-step")
    pod["spec"]["containers"] = [{**pod["spec"]["containers"][0], **container}]
    pod["spec"].update(more)
    return pod


CONTAINER = injection.trial_pod("airflow-step")["spec"]["containers"][0]
MOUNTED = {"name": webhook.VOLUME, "mountPath": "/elsewhere"}


@pytest.mark.parametrize(
    "pod",
    [
        with_one({}),
        with_one(
            {"env": [{"name": "MINE", "value": "1"}]}, volumes=[{"name": "a", "emptyDir": {}}]
        ),
        with_one({"env": [{"name": "AWS_REGION", "value": "mine"}]}),
        with_one({"env": [{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "mine"}]}),
        with_one({"volumeMounts": [MOUNTED]}, volumes=[webhook.token_volume()]),
        with_one(
            {}, initContainers=[{**CONTAINER, "name": "first"}, {**CONTAINER, "name": "next"}]
        ),
    ],
    ids=["bare", "variables", "a-region", "another-agent", "a-volume", "init-containers"],
)
def test_the_policy_does_what_the_webhook_does(
    lab: Lab, cluster: Cluster, pod: dict[str, Any]
) -> None:
    here, there = store_dry(cluster, pod), store_dry(cluster, webhook.add_identity(pod))
    assert here == there
    label = {"metadata": {**pod["metadata"], "labels": {"mine": "yes"}}}
    assert store_dry(cluster, {**pod, **label})["metadata"]["labels"] == {
        "mine": "yes",
        "eks.amazonaws.com/pod-identity": "enabled",
    }


def test_a_pod_of_no_association_is_given_nothing(lab: Lab, cluster: Cluster) -> None:
    stored = store_dry(cluster, injection.trial_pod("airflow-api-server"))
    assert "env" not in stored["spec"]["containers"][0]
    assert "labels" not in stored["metadata"]
    with probing(cluster, "probe-nobody", account="airflow-api-server") as (nobody,):
        assert nobody.run(NO_CREDENTIALS) is True


# --- What it may do -----------------------------------------------------------------------------


def test_a_step_reads_and_writes_its_prefixes_and_nothing_else(lab: Lab, step: Probe) -> None:
    own = [f"{BUCKET}/store", f"{BUCKET}/results"]
    others = [f"{BUCKET}/landing", f"{BUCKET}/logs", "another-bucket/store"]
    said = step.run(CALLS, json.dumps([*own, *others]))
    allowed = {name for name, what in said.items() if what == "allowed"}
    assert allowed == {f"{verb} {place}" for place in own for verb in ("write", "read", "list")}
    missing = {name for name, what in said.items() if what == "404"}
    assert missing == {f"head {place}" for place in own}
    assert {what for name, what in said.items() if name not in allowed | missing} == {"refused"}


def test_s3fs_does_the_same(lab: Lab, step: Probe) -> None:
    assert step.run(FILES) == ["of a test", False, "refused", "refused"]


def test_so_does_an_sdk_of_another_make(lab: Lab, step: Probe) -> None:
    assert step.run(IN_RUST) == ["of a test", "refused"]


def test_dvc_pushes_and_pulls_below_its_prefix_only(lab: Lab, step: Probe) -> None:
    *done, elsewhere = step.run(VERSIONS)
    assert done == [0, 0, 0, 0, 0, "of a test", 0]
    assert elsewhere


def test_a_plugin_has_the_role_of_its_component(lab: Lab, cluster: Cluster) -> None:
    (pod,) = workloads.list_pods(cluster, workloads.component("airflow-triggerer"))
    shown = cluster.execute(AIRFLOW, pod.metadata.name, ["python", "-c", PLUGIN])
    assert json.loads(shown.splitlines()[-1]) == ["written", None, "AccessDenied", "AccessDenied"]


# --- Tokens -------------------------------------------------------------------------------------


def make_token(
    cluster: Cluster, account: str, pod: str, *more: str, namespace: str = AIRFLOW
) -> str:
    """Return a token of a service account that is bound to a pod."""
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", pod)
    whose = ("--namespace", namespace, account)
    return cluster.kubectl("create", "token", *whose, *bound, *more).strip()


def sign_token(pods: Pods, token: str, **claims: object) -> str:
    """Return the token with other claims, signed by the cluster's own key."""
    content = pods.run_in_node("cat", ISSUER_KEY)
    key: Any = serialization.load_pem_private_key(content, None)
    head, inner, _ = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(inner + "==")) | claims
    body = f"{head}.{encode(json.dumps(said).encode())}"
    return f"{body}.{encode(key.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_each_token_that_is_not_a_living_pod_s_own_is_refused_by_name(
    lab: Lab, pods: Pods, step: Probe
) -> None:
    cluster, aimed = pods.cluster, ("--audience", AUDIENCE)
    (server,) = workloads.list_pods(cluster, workloads.API_SERVER)
    own = make_token(cluster, "airflow-step", step.name, *aimed)
    with probing(cluster, "probe-gone"):
        gone = make_token(cluster, "airflow-step", "probe-gone", *aimed)
    asked = {
        "its own": (own, 200, ""),
        "another audience": (
            make_token(cluster, "airflow-step", step.name, "--audience", "other"),
            400,
            "InvalidTokenException",
        ),
        "another namespace": (
            make_token(cluster, "default", "minio-0", *aimed, namespace=STORES),
            404,
            "ResourceNotFoundException): No association found for service account default in name",
        ),
        "no association": (
            make_token(cluster, "airflow-api-server", server.metadata.name, *aimed),
            404,
            "ResourceNotFoundException",
        ),
        "its pod is gone": (gone, 400, "InvalidTokenException"),
        "of no pod": (
            cluster.kubectl("create", "token", "airflow-step", *aimed, "-n", AIRFLOW).strip(),
            400,
            "InvalidTokenException): the token was made for no pod",
        ),
        "expired": (
            sign_token(pods, own, exp=int(time.time()) - 1),
            400,
            "ExpiredTokenException): Service account token failed",
        ),
        "not signed by the cluster": (f"{own[:-20]}{'A' * 20}", 400, "InvalidTokenException"),
        "no token": ("of-nobody", 400, "cannot be parsed"),
    }
    said = step.run(ASK, content=json.dumps([token for token, _, _ in asked.values()]))
    for (name, (_, status, words)), (got, answer) in zip(asked.items(), said, strict=True):
        assert got == status, (name, answer)
        assert words in answer, name


def test_eks_auth_itself_refuses_an_expired_token(lab: Lab, pods: Pods, step: Probe) -> None:
    own = make_token(pods.cluster, "airflow-step", step.name, "--audience", AUDIENCE)
    expired = sign_token(pods, own, exp=int(time.time()) - 1)
    ask = (
        "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8080);"
        "c.request('POST', '/clusters/kind/assume-role-for-pod-identity', sys.stdin.read());"
        "print(c.getresponse().headers['x-amzn-errortype'])"
    )
    where = ("exec", "--stdin", "--namespace", STORES, "deployment/eks-auth", "--")
    content = json.dumps({"token": expired})
    shown = pods.cluster.kubectl(*where, "python3", "-c", ask, stdin=content)
    assert shown.strip() == "ExpiredTokenException"
    found = {one.name: one for one in kind.examine(pods.config)}
    assert "ExpiredTokenException" in found["airflow-step"].status
    assert not found["airflow-step"].error, "a token that is refused may say anything of itself"


def test_the_doctor_says_what_each_account_may_and_got(lab: Lab, pods: Pods, step: Probe) -> None:
    step.run(FETCHES)
    found = {one.name: one.status for one in kind.examine(pods.config)}
    assert found["static keys"] == "no pod could read one"
    may = "role steps: reads results/*, store/*; writes results/*, store/*; got"
    assert may in found["airflow-step"]
    assert "role airflow: reads landing/*" in found["airflow-triggerer"]
    assert "airflow-api-server" not in found


# --- While things happen ------------------------------------------------------------------------


def test_many_requests_at_once_are_all_served(lab: Lab, cluster: Cluster) -> None:
    names = [f"probe-{number}" for number in range(8)]
    with probing(cluster, *names, small=True) as probes:
        said = run_in_each(probes, AT_ONCE, str(time.time() + 3))
    answers = [tuple(one) for each in said for one in each]
    print(f"\nseconds of 64 requests: {sorted(seconds for _, seconds in answers)}")
    assert [status for status, _ in answers] == [200] * 64


@contextmanager
def session_seconds(cluster: Cluster, seconds: int) -> Iterator[None]:
    """Have sessions last so long while the block runs. Each agent forgets what it holds."""
    place = ("--namespace", STORES)
    setting = ("set", "env", "deployment/eks-auth", *place)

    def change(count: int) -> None:
        cluster.kubectl(*setting, f"SESSION_SECONDS={count}")
        workloads.wait_until_ready(cluster, workloads.EKS_AUTH, SECONDS)
        for pod in workloads.list_pods(cluster, workloads.AGENT):
            cluster.kill_pod(workloads.IDENTITY, pod.metadata.name)
        workloads.wait_until_ready(cluster, workloads.AGENT, SECONDS)

    try:
        change(seconds)
        yield
    finally:
        change(6 * 3600)


def test_credentials_are_refreshed_within_a_run(lab: Lab, cluster: Cluster, step: Probe) -> None:
    fetched, lasting = step.run(FETCHES)
    assert fetched == 1
    assert 5 * 3600 < lasting <= 6 * 3600
    with session_seconds(cluster, 900):
        fetched, lasting = step.run(FETCHES)
        assert fetched >= 5, "an SDK looks for new ones within a quarter of an hour of their end"
        assert 600 < lasting <= 900
        run = lab.run(DAG)
    assert lab.dataset().trailers["Run-Id"] == run.id


@pytest.mark.parametrize("victim", ["pod-identity-agent", "eks-auth", "minio"])
def test_a_run_outlives_what_gives_it_credentials(lab: Lab, pods: Pods, victim: str) -> None:
    before = lab.history()
    run = lab.trigger(DAG)
    began: list[str] = []

    def kill_once(line: str) -> None:
        if "running" in line and not began:
            began.append(line)
            pods.kill(victim)

    runs.follow(lab, run, SECONDS * 4, kill_once)
    pods.restore()
    assert began
    after = lab.history()
    assert after[1:] == before
    assert requested_run_ids(after[:1]) == [run.id]
    lab.verify()
