"""Steps as pods: the provider's real operator against a fake API."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowException, ParamValidationError
from kubernetes.client import (
    ApiClient,
    ApiException,
    V1ContainerState,
    V1ContainerStateRunning,
    V1ContainerStateTerminated,
    V1ContainerStatus,
    V1ObjectMeta,
    V1Pod,
    V1PodStatus,
)
from urllib3.exceptions import HTTPError

from tests.support.dag_tasks import KIT, RUN_ID, dags_on_path, make_context, render_task

TREE = Path(__file__).resolve().parents[2]
TEMPLATE = Path("manifests", "base", "templates", "step", "template.yaml")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a label of RFC 1123
STEPS = {
    "pull_data": ["pull", "dataset"],
    "modify_data": ["modify"],
    "push_data": ["publish", "dataset", "--message=append a record to"],
}
RUN = {
    "RUN_ID": "{{ run_id }}",
    "DAG_ID": "{{ dag.dag_id }}",
    "DAG_VERSION": "{{ ti.bundle_instance.version or '' }}",
}


@pytest.fixture(scope="module", autouse=True)
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put DAGs and plugins on the path, as for the DAG processor, with a new AIRFLOW_HOME."""
    with dags_on_path(tmp_path_factory, "manifests/base/plugins"):
        yield


def create_step(pod: ModuleType, task_id: str = "pull_data", **named: Any) -> Any:
    """Create a step of a DAG, as `steps.step` does."""
    step = importlib.import_module("runtimes").Step(("dataset-steps", "pull"), RUN, **named)
    return pod.task(task_id, step)


@pytest.fixture(scope="module")
def pod(dags: None) -> ModuleType:
    return importlib.import_module("runtimes.pod")


@pytest.fixture
def step(pod: ModuleType) -> Any:
    return create_step(pod)


def read_template() -> V1Pod:
    """Read the pod of manifests/base/templates/step/template.yaml, as the API would send it."""
    document = yaml.safe_load((TREE / TEMPLATE).read_text("utf-8"))
    answer = SimpleNamespace(data=json.dumps(document["template"]))
    with ApiClient() as client:
        return client.deserialize(answer, "V1Pod")


def stored_template(name: str, template: V1Pod) -> Any:
    """Return the PodTemplate as the API would send it."""
    metadata = V1ObjectMeta(name=name, uid=f"uid of {name}")
    return SimpleNamespace(metadata=metadata, template=template)


def terminated_status(code: int, reason: str = "Error", name: str = "base") -> V1ContainerStatus:
    state = V1ContainerState(terminated=V1ContainerStateTerminated(exit_code=code, reason=reason))
    return container_status(name, state)


def container_status(name: str, state: V1ContainerState | None) -> V1ContainerStatus:
    return V1ContainerStatus(
        name=name, state=state, image="x", image_id="x", ready=False, restart_count=0
    )


def build_pod(*statuses: V1ContainerStatus, phase: str = "Failed") -> V1Pod:
    """Return a pod of the template with this phase and these states of containers."""
    pod = read_template()
    pod.status = V1PodStatus(phase=phase, container_statuses=list(statuses) or None)
    return pod


# --- The name -----------------------------------------------------------------------------------


def context(**values: object) -> dict[str, Any]:
    ti = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, **values}
    return {"ti": SimpleNamespace(**ti)}


def test_each_attempt_of_a_task_has_the_same_pod(pod: ModuleType) -> None:
    names = {pod.pod_name(context(try_number=number)) for number in range(1, 4)}
    assert len(names) == 1


def test_each_task_of_each_run_has_a_pod_of_its_own(pod: ModuleType) -> None:
    others = [
        context(),
        context(dag_id="e"),
        context(run_id="s"),
        context(task_id="u"),
        context(map_index=0),
        context(map_index=1),
        context(dag_id="d-t", task_id="t"),
        context(dag_id="d", task_id="t-t"),
        context(dag_id="dr", run_id=""),
        context(run_id="R"),
        context(dag_id="D"),
    ]
    assert len({pod.pod_name(one) for one in others}) == len(others)


@pytest.mark.parametrize(
    ("dag_id", "task_id", "readable"),
    [
        ("dataset_pipeline", "pull_data", "dataset-pipeline-pull-data"),
        ("Group.of.DAGs", "a.b__c", "group-of-dags-a-b-c"),
        ("_private", "x_", "private-x"),
        ("9lives", "1", "9lives-1"),
        ("d" * 250, "t" * 250, "d" * 40),
        ("d" * 39, "task", "d" * 39),
        ("größe", "ziehen", "gr-e-ziehen"),
    ],
)
def test_a_name_can_be_read(pod: ModuleType, dag_id: str, task_id: str, readable: str) -> None:
    name = pod.pod_name(context(dag_id=dag_id, task_id=task_id, run_id="manual__é/1+00:00"))
    assert LABEL.fullmatch(name)
    assert re.fullmatch(rf"{readable}-[0-9a-f]{{16}}", name)


@pytest.mark.parametrize(("dag_id", "task_id"), [("данные", "шаг"), ("___", "__")])
def test_a_name_without_a_letter_of_ascii(pod: ModuleType, dag_id: str, task_id: str) -> None:
    """Airflow accepts any letter of Unicode in an id, and digits, dashes, dots and underscores."""
    assert LABEL.fullmatch(pod.pod_name(context(dag_id=dag_id, task_id=task_id)))


# --- The proof ----------------------------------------------------------------------------------

UNKNOWN = [
    None,
    V1Pod(),
    V1Pod(status=V1PodStatus()),
    V1Pod(status=V1PodStatus(phase="Succeeded", container_statuses=[])),
    V1Pod(
        status=V1PodStatus(phase="Succeeded", container_statuses=[container_status("base", None)])
    ),
    V1Pod(status=V1PodStatus(container_statuses=[container_status("base", V1ContainerState())])),
    V1Pod(
        status=V1PodStatus(container_statuses=[terminated_status(0, "Completed", name="sidecar")])
    ),
]


@pytest.mark.parametrize("number", range(len(UNKNOWN)))
def test_without_a_report_of_the_node_nothing_is_proved(pod: ModuleType, number: int) -> None:
    assert pod.terminated_state(UNKNOWN[number]) is None
    with pytest.raises(pod.AirflowException, match="nobody saw the step end with code 0"):
        pod.refuse_unproven(UNKNOWN[number])


@pytest.mark.parametrize("code", [1, 65, 75, 137, 143])
def test_another_code_than_0_is_no_success(pod: ModuleType, code: int) -> None:
    one = build_pod(
        terminated_status(0, name="sidecar"), terminated_status(code), phase="Succeeded"
    )
    assert pod.terminated_state(one).exit_code == code
    with pytest.raises(pod.AirflowException) as caught:
        pod.refuse_unproven(one)
    assert not isinstance(caught.value, pod.AirflowFailException)  # so it is retried


def test_code_0_is_success(pod: ModuleType) -> None:
    pod.refuse_unproven(build_pod(terminated_status(0, "Completed"), phase="Succeeded"))
    pod.refuse_unproven(
        build_pod(terminated_status(1, name="sidecar"), terminated_status(0, "Completed"))
    )


# --- The reason ---------------------------------------------------------------------------------


def explain_error(step: Any, left: V1Pod | None) -> BaseException:
    """Return the error that replaces the provider's error, or the provider's error itself."""
    error: BaseException = AirflowException("the provider's words")
    step.remote_pod = left
    try:
        step.explain_failure({"dag": SimpleNamespace(fileloc="/bundles/x/dags/some_dag.py")}, error)
    except AirflowException as better:
        error = better
    return error


def test_too_little_memory_of_the_template_is_explained(pod: ModuleType) -> None:
    """The error names the limit and where to raise it; no retry can succeed with the same limit."""
    step = create_step(pod, template="big")
    limit = read_template().spec.containers[0].resources.limits["memory"]
    error = explain_error(step, build_pod(terminated_status(137, "OOMKilled")))
    assert type(error) is pod.AirflowFailException
    assert str(error.__cause__) == "the provider's words"
    assert str(error) == (
        f"OOMKilled: pull_data needed more than its limit of {limit}; raise "
        "resources.limits.memory in manifests/base/templates/big, then lab up"
    )
    assert (
        TREE / pod.StepPodOperator.template_memory_setting(create_step(pod)).split()[2][:-1]
    ).is_dir()


def test_too_little_memory_of_the_step_s_own_is_explained(pod: ModuleType) -> None:
    step = create_step(pod, memory="256Mi")
    left = build_pod(terminated_status(137, "OOMKilled"))
    left.spec.containers[0].resources.limits["memory"] = "256Mi"
    error = explain_error(step, left)
    assert type(error) is pod.AirflowFailException
    assert str(error) == (
        "OOMKilled: pull_data needed more than its limit of 256Mi; "
        "raise memory= in dags/some_dag.py"
    )


def test_what_no_retry_can_help_fails_for_good(pod: ModuleType, step: Any) -> None:
    error = explain_error(step, build_pod(terminated_status(65)))
    assert type(error) is pod.AirflowFailException
    assert "no retry can help" in str(error)


@pytest.mark.parametrize("code", [0, 1, 75, 137, 143])
def test_any_other_error_is_left_as_it_is(pod: ModuleType, step: Any, code: int) -> None:
    for one in (build_pod(terminated_status(code)), None, build_pod()):
        assert str(explain_error(step, one)) == "the provider's words"


@pytest.mark.parametrize(
    "said",
    ['exec: "pull": executable file not found in $PATH', 'exec: "/x": no such file or directory'],
)
def test_a_command_that_the_image_has_not_fails_for_good(
    pod: ModuleType, step: Any, said: str
) -> None:
    """As containerd says it, whose error Kubernetes shows as the container's end."""
    left = build_pod(terminated_status(128, "StartError"))
    left.status.container_statuses[0].state.terminated.message = f"runc create failed: {said}: x"
    error = explain_error(step, left)
    assert type(error) is pod.AirflowFailException
    assert "the image mlops-lab/worker has no command dataset-steps" in str(error)
    left.status.container_statuses[0].state.terminated.message = "runc create failed: no memory"
    assert str(explain_error(step, left)) == "the provider's words"


def test_the_step_s_codes_are_those_of_the_steps(pod: ModuleType) -> None:
    errors = importlib.import_module("dataset_steps.errors")
    assert errors.StepError.exit_code == pod.HOPELESS
    assert errors.Overtaken.exit_code == pod.OVERTAKEN


# --- Execution ----------------------------------------------------------------------------------


class Api:
    """A fake API that answers each read with the next pod, and repeats the last one."""

    def __init__(self, *pods: V1Pod) -> None:
        self.pods = list(pods)
        self.reads = 0
        self.api_client = ApiClient()

    def read_namespaced_pod(self, *_: str) -> V1Pod:
        self.reads += 1
        return self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]

    def read_namespaced_pod_template(self, name: str, namespace: str) -> Any:
        assert (name, namespace) == ("step", "airflow")
        return stored_template(name, read_template())


def execute_step(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch, raised: str, *left: V1Pod
) -> None:
    """Run the step; the provider's part leaves the pod `left` and raises `raised`, if any."""

    def fake_execute(self: Any, context: Any) -> None:
        self.remote_pod = left[0] if left else None
        if raised:
            raise pod.AirflowException(raised)

    monkeypatch.setattr(pod.KubernetesPodOperator, "execute_sync", fake_execute)
    step.__dict__["client"] = Api(V1Pod())
    step.execute(context(dag_id="dataset_pipeline", task_id="pull_data"))


def test_a_step_is_green_when_its_end_was_seen(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute_step(pod, step, monkeypatch, "", build_pod(terminated_status(0)))
    assert re.fullmatch("dataset-pipeline-pull-data-[0-9a-f]{16}", step.name)


def test_a_step_is_not_green_when_its_pod_vanished(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pod.AirflowException, match="nobody saw"):
        execute_step(pod, step, monkeypatch, "")
    with pytest.raises(pod.AirflowException, match="nobody saw"):
        execute_step(
            pod, step, monkeypatch, "", build_pod(terminated_status(143), phase="Succeeded")
        )


def test_a_failure_is_explained_or_raised_as_it_is(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pod.AirflowFailException):
        execute_step(pod, step, monkeypatch, "a failure", build_pod(terminated_status(65)))
    with pytest.raises(pod.AirflowException, match="OOMKilled"):
        execute_step(
            pod, step, monkeypatch, "a failure", build_pod(terminated_status(137, "OOMKilled"))
        )
    with pytest.raises(pod.AirflowException, match=r"^a failure$"):
        execute_step(pod, step, monkeypatch, "a failure", build_pod(terminated_status(75)))
    with pytest.raises(pod.AirflowException, match=r"^a failure$"):
        execute_step(pod, step, monkeypatch, "a failure")


def build_pod_request(pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch) -> V1Pod:
    """Return the pod that the provider would create."""
    execute_step(pod, step, monkeypatch, "", build_pod(terminated_status(0)))
    monkeypatch.setattr(type(step), "_get_ti_pod_labels", lambda *_: {"dag_id": "d"})
    return step.build_pod_request_obj({}, dry_run=True)


def test_the_pod_is_the_template_s_with_the_step_s_words(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's request keeps every field of the template."""
    built = build_pod_request(pod, step, monkeypatch)
    plain = read_template()
    (container,) = built.spec.containers
    assert (container.command, container.args) == (["dataset-steps"], ["pull"])
    own = {variable.name: variable.value for variable in container.env if variable.value}
    workspace = f"/shared/runs/{pod.run_key('dataset_pipeline', 'r')}/repository"
    assert own == {
        **RUN,
        "DATA_SETS": "{}",
        "DATASET_NAME": "dataset",
        "WORKSPACE": workspace,
        "DATA_DATASET": f"{workspace}/$(DATASET_PATH)",
    }
    assert container.working_dir is None
    kept = {variable.name for variable in container.env if variable.value_from}
    assert kept == {"GIT_SYNC_USERNAME", "GIT_SYNC_PASSWORD"}
    for name in ("image", "env_from", "resources", "security_context", "volume_mounts"):
        assert getattr(container, name) == getattr(plain.spec.containers[0], name)
    for name in ("security_context", "service_account_name", "volumes", "restart_policy"):
        assert getattr(built.spec, name) == getattr(plain.spec, name)
    assert built.spec.automount_service_account_token is False
    assert built.spec.termination_grace_period_seconds == 2
    assert built.metadata.labels["app.kubernetes.io/component"] == "step"
    assert (built.metadata.namespace, built.metadata.name) == ("airflow", step.name)
    assert "kept" not in built.metadata.labels
    (owner,) = built.metadata.owner_references
    assert (owner.kind, owner.name, owner.uid) == ("PodTemplate", "step", "uid of step")


@pytest.mark.parametrize(("given", "seconds"), [(None, 120), ("900", 900)])
def test_how_long_a_pod_may_take_to_start_is_the_cluster_s_setting(
    pod: ModuleType,
    step: Any,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    seconds: int,
) -> None:
    """Where nodes are added on demand, none is there for minutes."""
    monkeypatch.delenv(pod.START_SECONDS, raising=False)
    if given:
        monkeypatch.setenv(pod.START_SECONDS, given)
    build_pod_request(pod, step, monkeypatch)
    assert (step.startup_timeout_seconds, step.schedule_timeout_seconds) == (seconds, seconds)


def test_a_step_s_own_memory_takes_the_place_of_the_template_s(
    pod: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is set too, or the limit could be below it; the CPU stays the same."""
    built = build_pod_request(pod, create_step(pod, memory="100Mi"), monkeypatch)
    plain = read_template().spec.containers[0].resources
    given = built.spec.containers[0].resources
    assert given.limits == {**plain.limits, "memory": "100Mi"}
    assert given.requests == {**plain.requests, "memory": "100Mi"}


def test_a_pod_says_whose_it_is_and_whether_it_is_kept(
    pod: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annotations hold any id unchanged; the label `kept` is for selectors."""
    step = create_step(pod, keep=True)
    monkeypatch.setattr(type(step), "sweep", lambda *_: None)
    step.keep_hours = "24"  # rendered by Airflow
    built = build_pod_request(pod, step, monkeypatch)
    assert built.metadata.annotations == {"dag_id": "{{ dag.dag_id }}", "run_id": "{{ run_id }}"}
    assert {"annotations", "keep_hours"} <= set(pod.StepPodOperator.template_fields)
    assert built.metadata.labels["kept"] == "True"


def test_memory_that_is_none_is_no_dag(pod: ModuleType) -> None:
    with pytest.raises(ValueError, match="'256MB' is no amount of memory"):
        create_step(pod, memory="256MB")


# --- A name that is taken -----------------------------------------------------------------------


def fake_creation(
    pod: ModuleType, monkeypatch: pytest.MonkeyPatch, *answers: object
) -> Callable[[], int]:
    """Make the provider's creation raise or return the answers in turn; return a call counter."""
    left = list(answers)

    def fake_create(self: Any, request: Any, context: Any) -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        calls.append(answer)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    calls: list[object] = []
    monkeypatch.setattr(pod.KubernetesPodOperator, "get_or_create_pod", fake_create)
    monkeypatch.setattr(pod, "PAUSE", 0.001)
    return lambda: len(calls)


def test_the_pod_of_an_attempt_that_is_ending_is_waited_for(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = ApiException(status=409)
    calls = fake_creation(pod, monkeypatch, taken, taken, taken, "a pod")
    assert step.get_or_create_pod(V1Pod(), {}) == "a pod"
    assert calls() == 4


@pytest.mark.parametrize(
    "error", [ApiException(status=403), ApiException(status=500), ValueError("no pod")]
)
def test_another_failure_is_not_waited_for(
    error: Exception, pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_creation(pod, monkeypatch, error)
    with pytest.raises(type(error)):
        step.get_or_create_pod(V1Pod(), {})
    assert calls() == 1


def test_a_pod_that_stays_is_given_up_on(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "GONE_SECONDS", 0.05)
    monkeypatch.setattr(pod, "PAUSE", 0.01)
    calls = fake_creation(pod, monkeypatch, ApiException(status=409))
    with pytest.raises(ApiException) as caught:
        step.get_or_create_pod(V1Pod(), {})
    assert caught.value.status == 409
    assert calls() > 2


# --- What is kept -------------------------------------------------------------------------------


class Namespace:
    """A fake of the API that the operator uses: pods with names, labels and uids.

    A deleted pod stays for a few more reads. A pod is created only while no other pod of the same
    task is at work.
    """

    def __init__(self, *pods: V1Pod) -> None:
        self.pods = list(pods)
        self.going: dict[str, int] = {}
        self.api_client = ApiClient()
        self.lists: list[str] = []

    def names(self) -> list[str]:
        return [pod.metadata.name for pod in self.pods]

    def find_pod(self, name: str) -> V1Pod:
        """Return the pod or raise ApiException; the third read after a deletion finds it gone."""
        found = next((p for p in self.pods if p.metadata.name == name), None)
        if found and found.metadata.uid in self.going:
            self.going[found.metadata.uid] -= 1
            if self.going[found.metadata.uid] <= 0:
                self.pods.remove(found)
                found = None
        if found is None:
            raise ApiException(status=404)
        return found

    def read_namespaced_pod(self, name: str, _: str) -> V1Pod:
        return self.find_pod(name)

    def list_namespaced_pod(self, *_: str, label_selector: str, **__: str) -> Any:
        self.lists.append(label_selector)
        wanted = [p for p in self.pods if is_selected(p.metadata.labels, label_selector)]
        return SimpleNamespace(items=wanted)

    def delete_namespaced_pod(self, name: str, _: str, body: Any) -> None:
        found = self.find_pod(name)
        if found.metadata.uid != body.preconditions.uid:
            raise ApiException(status=409)
        self.going.setdefault(found.metadata.uid, 3)

    def create_namespaced_pod(self, body: dict[str, Any], **_: Any) -> V1Pod:
        answer = SimpleNamespace(data=json.dumps(body))
        pod = self.api_client.deserialize(answer, "V1Pod")
        if pod.metadata.name in self.names():
            raise ApiException(status=409)
        task = {k: v for k, v in pod.metadata.labels.items() if k in ("dag_id", "run_id")}
        at_work = [p for p in self.pods if p.status.phase not in ("Succeeded", "Failed")]
        assert not [p for p in at_work if task.items() <= p.metadata.labels.items()]
        pod.metadata.uid, pod.status = str(uuid.uuid4()), V1PodStatus(phase="Pending")
        self.pods.append(pod)
        return pod


def is_selected(labels: dict[str, str], selector: str) -> bool:
    """Return whether the selector matches; a missing label differs from any value."""
    for term in selector.split(","):
        name, differs, value = term.partition("!=") if "!=" in term else term.partition("=")
        if "=" not in term:
            if (term.lstrip("!") in labels) is term.startswith("!"):
                return False
        elif (labels.get(name) == value) is (differs == "!="):
            return False
    return True


def build_kept_pod(
    name: str,
    phase: str = "Failed",
    ago: timedelta = timedelta(0),
    *,
    read: bool = True,
    **labels: str,
) -> V1Pod:
    """Return a kept pod of task t in run r of DAG d, as a step left it `ago`."""
    pod = build_pod(terminated_status(1), phase=phase)
    own = {"dag_id": "d", "run_id": "r", "task_id": "t", "try_number": "1", "kept": "True"}
    pod.metadata.name, pod.metadata.uid = name, str(uuid.uuid4())
    pod.metadata.labels = {**own, "kubernetes_pod_operator": "True", **labels}
    if read:
        pod.metadata.labels["already_checked"] = "True"
    pod.metadata.creation_timestamp = datetime.now(UTC) - timedelta(days=30)
    pod.status.container_statuses[0].state.terminated.finished_at = datetime.now(UTC) - ago
    if phase in ("Running", "Pending"):
        pod.status = V1PodStatus(phase=phase)
    return pod


def run_context(**values: object) -> dict[str, Any]:
    """Return the context of an attempt, with its run's id and a DAG."""
    ti = context(**values)["ti"]
    return {"ti": ti, "run_id": ti.run_id, "dag": SimpleNamespace()}


@pytest.fixture
def kept(pod: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Namespace]]:
    """Return a function that creates a kept, rendered step and its namespace with given pods."""
    monkeypatch.setattr(pod, "PAUSE", 0.001)

    def create_kept_step(*pods: V1Pod, keep_hours: str = "24") -> tuple[Any, Namespace]:
        step, namespace = create_step(pod, "t", keep=True), Namespace(*pods)
        step.keep_hours = keep_hours
        step.__dict__["client"] = namespace
        step.name = pod.pod_name(run_context())
        return step, namespace

    return create_kept_step


def build_request(step: Any) -> V1Pod:
    """Return the pod that a second attempt asks for."""
    request = read_template()
    request.metadata.name, request.metadata.namespace = step.name, "airflow"
    request.metadata.labels = {**step._get_ti_pod_labels(run_context(try_number=2)), "kept": "True"}
    return request


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_an_earlier_attempt_s_kept_pod_is_not_taken_for_the_new_one(
    kept: Callable[..., Any], pod: ModuleType, phase: str, read: bool
) -> None:
    """Its result would count for the new attempt, which had not run at all."""
    old = build_kept_pod(pod.pod_name(run_context()), phase, read=read)
    step, namespace = kept(old)
    taken = step.get_or_create_pod(build_request(step), run_context(try_number=2))
    (now,) = namespace.pods
    assert taken.metadata.labels["try_number"] == "2"
    assert (now.metadata.labels["try_number"], now.status.phase) == ("2", "Pending")
    assert now.metadata.uid != old.metadata.uid


@pytest.mark.parametrize("phase", ["Running", "Pending"])
def test_an_earlier_attempt_s_pod_that_is_at_work_is_taken_up(
    kept: Callable[..., Any], pod: ModuleType, phase: str
) -> None:
    old = build_kept_pod(pod.pod_name(run_context()), phase, read=False)
    step, namespace = kept(old)
    assert step.get_or_create_pod(build_request(step), run_context(try_number=2)) is old
    assert namespace.pods == [old]


def test_two_attempts_at_once_have_one_pod(kept: Callable[..., Any], pod: ModuleType) -> None:
    """The second attempt finds the pod of the first, whichever of them found the old one."""
    step, namespace = kept(build_kept_pod(pod.pod_name(run_context())))
    late, _ = kept()
    late.__dict__["client"] = namespace
    step.get_or_create_pod(build_request(step), run_context(try_number=2))
    taken = late.get_or_create_pod(build_request(late), run_context(try_number=3))
    assert [taken] == namespace.pods


def test_a_pod_that_took_the_name_of_another_is_not_removed_for_it(
    kept: Callable[..., Any], pod: ModuleType
) -> None:
    old, new = build_kept_pod("a-pod"), build_kept_pod("a-pod", "Running")
    step, namespace = kept(new)
    step.remove(old)
    assert (namespace.pods, namespace.going) == ([new], {})


def test_what_earlier_runs_left_goes_when_it_is_old(kept: Callable[..., Any]) -> None:
    day, hour = timedelta(hours=24), timedelta(hours=1)
    step, namespace = kept(
        build_kept_pod("old", ago=day, run_id="a"),
        build_kept_pod("old-success", "Succeeded", ago=day + hour, run_id="b"),
        build_kept_pod("young", ago=day - hour, run_id="a"),
        build_kept_pod("at-work", "Running", run_id="a"),
        build_kept_pod("its-own", ago=day + hour),
        build_kept_pod("of-another-dag", ago=day + hour, run_id="a", dag_id="e"),
        build_kept_pod("not-kept", ago=day + hour, run_id="a", kept="False"),
    )
    step.sweep(run_context(), 24)
    assert {p.metadata.name for p in namespace.pods if p.metadata.uid in namespace.going} == {
        "old",
        "old-success",
    }


def test_nothing_is_left_of_earlier_runs_when_nothing_is_kept(kept: Callable[..., Any]) -> None:
    """Only unread pods stay, for an hour: an operator that was not killed will read them."""
    step, namespace = kept(
        build_kept_pod("just-now", run_id="a"),
        build_kept_pod("clock-behind", ago=timedelta(seconds=-5), run_id="a"),
        build_kept_pod("unread", ago=timedelta(minutes=59), run_id="a", read=False),
        build_kept_pod("nobody-s", ago=timedelta(minutes=61), run_id="a", read=False),
    )
    step.sweep(run_context(), 0)
    assert {p.metadata.name for p in namespace.pods if p.metadata.uid in namespace.going} == {
        "just-now",
        "clock-behind",
        "nobody-s",
    }


def test_what_an_earlier_run_left_goes_before_its_node_has_reported_the_phase(
    kept: Callable[..., Any],
) -> None:
    """A run that follows at once finds the last pod so: its container has ended, it has not."""
    ended = build_kept_pod("just-ended", run_id="a")
    ended.status.phase = "Running"
    step, namespace = kept(ended)
    step.sweep(run_context(), 0)
    assert list(namespace.going) == [ended.metadata.uid]


def test_a_pod_of_which_the_node_said_nothing_is_as_old_as_it_is(
    kept: Callable[..., Any],
) -> None:
    silent = build_kept_pod("evicted", run_id="a")
    silent.status.container_statuses = None
    step, namespace = kept(silent)
    step.sweep(run_context(), 24)
    assert list(namespace.going) == [silent.metadata.uid]


def test_the_first_step_of_a_run_sweeps_and_no_other(
    kept: Callable[..., Any], pod: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[float] = []
    monkeypatch.setattr(pod.StepPodOperator, "sweep", lambda *given: swept.append(given[2]))
    first, _ = kept(keep_hours="0.5")
    execute_step(pod, first, monkeypatch, "", build_pod(terminated_status(0)))
    second, _ = kept(keep_hours="0.5")
    second.upstream_task_ids.add("first")
    execute_step(pod, second, monkeypatch, "", build_pod(terminated_status(0)))
    execute_step(pod, create_step(pod), monkeypatch, "", build_pod(terminated_status(0)))
    assert swept == [0.5]


@pytest.mark.parametrize("error", [ApiException(status=500), HTTPError("no answer")])
def test_a_step_does_not_fail_for_what_is_left_of_others(
    error: Exception, kept: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, namespace = kept(build_kept_pod("old", ago=timedelta(days=2), run_id="a"))

    def refuse_deletion(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(namespace, "delete_namespaced_pod", refuse_deletion)
    step.sweep(run_context(), 24)
    assert namespace.lists
    assert namespace.names() == ["old"]


# --- Steps that run again -----------------------------------------------------------------------

Codes = dict[str, list[int]]


class Cluster(Namespace):
    """A fake of a cluster in which pods end at once, with the codes that a test gives, or with 0.

    A pod is known by its command's last word. The requests of all pods are in `requests`.
    """

    def __init__(self, codes: Codes, *pods: V1Pod) -> None:
        super().__init__(*pods)
        self.codes = codes
        self.requests: list[V1Pod] = []

    def read_namespaced_pod_template(self, name: str, _: str) -> Any:
        found = read_template()
        found.spec.containers[0].image = f"lab/{name}"
        return stored_template(name, found)

    def run(self, step: Any, context: Any) -> None:
        """Run a step's pod as the provider does."""
        request = step.build_pod_request_obj(context, dry_run=True)
        step.pod = step.get_or_create_pod(request, context)
        word = (request.spec.containers[0].args or request.spec.containers[0].command)[-1]
        code = self.codes.get(word, [0]).pop(0) if self.codes.get(word) else 0
        self.requests.append(request)
        self.pods = [one for one in self.pods if one.metadata.name != step.pod.metadata.name]
        step.remote_pod = build_pod(terminated_status(code))
        if code:
            raise AirflowException(f"Pod {step.name} returned a failure.")

    def words(self) -> list[str]:
        """Return the commands of all pods, in the order in which they ran."""
        containers = [one.spec.containers[0] for one in self.requests]
        return [" ".join([*one.command, *one.args]) for one in containers]

    def env(self, number: int) -> dict[str, str]:
        return {one.name: one.value for one in self.requests[number].spec.containers[0].env}


@pytest.fixture
def cluster(pod: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    """Return a function that makes the cluster in which a test's steps run."""

    def make_cluster(codes: Codes | None = None, *pods: V1Pod) -> Cluster:
        made = Cluster(codes or {}, *pods)

        def run(step: Any, context: Any) -> None:
            made.run(step, context)

        monkeypatch.setattr(pod.StepPodOperator, "client", made, raising=False)
        monkeypatch.setattr(pod.KubernetesPodOperator, "execute_sync", run)
        monkeypatch.setattr(pod, "PAUSE", 0.001)
        return made

    return make_cluster


def make_pipeline(pod: ModuleType, **how: Any) -> Any:
    """Return a DAG with a step of somebody's own, `how`, between a pull and a publish."""
    step = importlib.import_module("runtimes").Step
    own = {"template": "model", **how}
    with importlib.import_module("airflow.sdk").DAG("some_dag") as dag:
        (
            pod.task("pull", step((KIT, "pull", "orders"), RUN, role="pull"))
            >> pod.task("clean", step(("my-steps", "clean"), {"HOW": "{{ params.how }}"}, **own))
            >> pod.task("join", step(("my-steps", "join"), {}, **own))
            >> pod.task(
                "publish", step((KIT, "publish", "orders"), RUN, role="publish", reruns=True)
            )
        )
    return dag


def execute_task(dag: Any, task_id: str, **how: Any) -> Any:
    """Run a task of the DAG as Airflow's runner does; return it."""
    context_of_it = make_context(dag, task_id, params={"how": "$(HOME) $$"}, **how)
    task = render_task(context_of_it)
    task.execute(context_of_it)
    return task


def test_a_step_works_in_the_run_s_workspace_in_the_image_that_it_names(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    """Kubernetes sees no variable in what it is given, but for the one that is meant."""
    found = cluster()
    data_sets = {"report": "out/$(HOME)"}
    execute_task(make_pipeline(pod, image="else.where/x:1", data_sets=data_sets), "clean")
    (container,) = found.requests[0].spec.containers
    workspace = f"/shared/runs/{pod.run_key('some_dag', RUN_ID)}/repository"
    assert (container.image, container.image_pull_policy) == ("else.where/x:1", "IfNotPresent")
    assert container.working_dir == workspace
    env = found.env(0)
    assert (env["WORKSPACE"], env["HOW"]) == (workspace, "$$(HOME) $$$$")
    assert env["DATA_DATASET"] == f"{workspace}/$(DATASET_PATH)"
    assert env["DATA_REPORT"] == f"{workspace}/out/$$(HOME)"
    execute_task(make_pipeline(pod), "pull")
    (container,) = found.requests[1].spec.containers
    assert (container.image, container.working_dir) == ("lab/step", None)


def test_a_word_that_looks_like_a_file_is_a_word(pod: ModuleType) -> None:
    """The provider takes it for the name of a template."""
    step = importlib.import_module("runtimes").Step(("x", "a.json", "{{ params.how }}.yaml"), {})
    with importlib.import_module("airflow.sdk").DAG("some_dag") as dag:
        pod.task("one", step)
    task = render_task(make_context(dag, "one", params={"how": "well"}))
    assert task.argv == ["x", "a.json", "well.yaml"]


def test_a_retry_starts_afresh_in_pods_of_its_own(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    """Each names both tasks; one after another they work in the run's workspace."""
    found = cluster()
    execute_task(make_pipeline(pod), "join", attempt=2)
    assert found.words() == [
        "dataset-steps pull orders --again",
        "my-steps clean",
        "my-steps join",
    ]
    names = [one.metadata.name for one in found.requests]
    attempt = make_context(make_pipeline(pod), "join")
    assert names == [
        *(pod.pod_name(attempt, other) for other in ("pull", "clean")),
        pod.pod_name(attempt),
    ]
    others = {pod.pod_name(make_context(make_pipeline(pod), name)) for name in ("pull", "clean")}
    assert len({*names, *others}) == 5
    labels = [one.metadata.labels for one in found.requests]
    assert {one["task_id"] for one in labels} == {"join"}
    assert [one.get(pod.WITHIN) for one in labels] == ["pull", "clean", None]
    assert found.env(1)["HOW"] == "$$(HOME) $$$$"
    assert [one.spec.containers[0].image for one in found.requests] == [
        "lab/step",
        "lab/model",
        "lab/model",
    ]


def find_selector(pod: ModuleType, within: str | None) -> str:
    step = create_step(pod, "t")
    step.within = within
    step.labels = {pod.WITHIN: "other"} if within else {}
    found: str = step._build_find_pod_label_selector(run_context())
    return found


def test_a_step_and_one_that_runs_again_do_not_take_each_other_s_pods(pod: ModuleType) -> None:
    own = build_kept_pod("own", "Running", read=False)
    again = build_kept_pod("again", "Running", read=False)
    again.metadata.labels[pod.WITHIN] = "other"
    for one, within in ((own, None), (again, "t")):
        assert is_selected(one.metadata.labels, find_selector(pod, within))
    assert not is_selected(again.metadata.labels, find_selector(pod, None))
    assert not is_selected(own.metadata.labels, find_selector(pod, "t"))


@pytest.mark.parametrize("noted", ["own", "another"])
def test_the_provider_s_note_of_a_pod_counts_for_that_pod_only(
    pod: ModuleType, step: Any, monkeypatch: pytest.MonkeyPatch, noted: str
) -> None:
    """A task has more than one pod, and Airflow notes one name for it."""
    monkeypatch.setattr(
        pod.KubernetesPodOperator, "_get_pod_from_task_state_store", lambda *_: named_pod(noted)
    )
    step.name = "own"
    found = step._get_pod_from_task_state_store({})
    assert (found is not None) == (noted == "own")


def test_what_a_killed_attempt_ran_again_is_ended_first(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    """The cluster refuses a pod while another one of its run is at work."""
    dag = make_pipeline(pod)
    whose: dict[str, Any] = {
        "dag_id": "some_dag",
        "run_id": RUN_ID,
        "task_id": "join",
        pod.WITHIN: "clean",
    }
    name = pod.pod_name(make_context(dag, "join"), "clean")
    left = build_kept_pod(name, "Running", read=False, **whose)
    found = cluster({}, left)
    execute_task(dag, "join", attempt=2)
    assert list(found.going) == [left.metadata.uid]
    assert len(found.words()) == 3


def test_an_orphan_that_stays_is_waited_for_and_no_longer(
    pod: ModuleType, cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    whose: dict[str, Any] = {
        "dag_id": "some_dag",
        "run_id": RUN_ID,
        "task_id": "join",
        pod.WITHIN: "clean",
    }
    found = cluster({}, build_kept_pod("stays", "Running", read=False, **whose))
    monkeypatch.setattr(found, "delete_namespaced_pod", lambda *_, **__: None)
    monkeypatch.setattr(pod, "GONE_SECONDS", 0.01)
    with pytest.raises(AirflowException, match="stays of an earlier attempt still works"):
        execute_task(make_pipeline(pod), "join", attempt=2)
    assert not found.requests


def test_a_killed_attempt_s_own_pod_that_is_at_work_is_taken_up(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    """Nothing is undone under it."""
    dag = make_pipeline(pod)
    whose: dict[str, Any] = {"dag_id": "some_dag", "run_id": RUN_ID, "task_id": "join"}
    left = build_kept_pod(pod.pod_name(make_context(dag, "join")), "Running", read=False, **whose)
    found = cluster({}, left)
    task = execute_task(dag, "join", attempt=2)
    assert found.words() == ["my-steps join"]
    assert task.pod is left


@pytest.mark.parametrize(
    ("one", "at_work"),
    [
        (build_pod(phase="Pending"), True),
        (build_pod(terminated_status(75), phase="Running"), False),
        (build_pod(terminated_status(75), phase="Failed"), False),
    ],
    ids=["begins", "its container has ended", "ended"],
)
def test_an_attempt_whose_container_has_ended_is_at_work_no_more(
    one: V1Pod, at_work: bool, pod: ModuleType
) -> None:
    """Its pod's own phase comes a second later, and the retry may come before that."""
    assert pod.is_at_work(one) is at_work


def test_a_publish_that_was_overtaken_runs_the_steps_again(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    """They need another image. It goes on until nobody comes first."""
    found = cluster({"orders": [80, 80, 0]})
    execute_task(make_pipeline(pod), "publish")
    publish = "dataset-steps publish orders"
    both = ["my-steps clean", "my-steps join"]
    assert found.words() == [publish, *both, publish, *both, publish]
    assert [found.env(number).get("STEPS_HAVE_RUN") for number in (0, 3, 6)] == [
        None,
        "true",
        "true",
    ]
    assert all("AGAIN" not in found.env(number) for number in range(7))
    assert {one.metadata.labels.get(pod.WITHIN) for one in found.requests} == {
        None,
        "clean",
        "join",
    }


@pytest.mark.parametrize("how", [{"template": "step"}, {"template": "step", "memory": "64Mi"}])
def test_publish_runs_steps_of_its_own_image_itself(
    pod: ModuleType, cluster: Callable[..., Cluster], how: dict[str, str]
) -> None:
    """Unless one has a limit of its own."""
    found = cluster()
    execute_task(make_pipeline(pod, **how), "publish")
    told = found.env(0).get("AGAIN")
    assert (told is None) == ("memory" in how)
    if told:
        assert "$$(HOME) $$$$" in told
        assert [one["argv"][1] for one in json.loads(told)] == ["clean", "join"]


def test_a_step_that_fails_while_it_runs_again_is_named(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    cluster({"orders": [80], "clean": [65]})
    with pytest.raises(pod.AirflowFailException, match=r"^clean, which ran again, says: no retry"):
        execute_task(make_pipeline(pod), "publish")
    cluster({"orders": [80], "clean": [75]})
    with pytest.raises(AirflowException, match=r"some-dag-clean-again-[0-9a-f]{16} returned"):
        execute_task(make_pipeline(pod), "publish")


def test_another_step_s_code_80_is_a_failure_as_any(
    pod: ModuleType, cluster: Callable[..., Cluster]
) -> None:
    found = cluster({"clean": [80]})
    with pytest.raises(AirflowException, match="returned a failure"):
        execute_task(make_pipeline(pod), "clean")
    assert len(found.requests) == 1


def test_a_task_that_is_ended_ends_the_pod_that_is_at_work(
    pod: ModuleType, cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow asks the task to end, and knows nothing of the step that runs again in it."""
    found, deleted = cluster(), []
    monkeypatch.setattr(found, "delete_namespaced_pod", lambda **how: deleted.append(how["name"]))
    dag = make_pipeline(pod)
    at_end = make_context(dag, "join", attempt=2, params={"how": ""})
    task = render_task(at_end)

    def be_ended(step: Any, _: Any) -> None:
        if step.task_id == "clean":
            step.pod = named_pod(step.name)
            task.on_kill()
            raise AirflowException("ended")
        step.remote_pod = build_pod(terminated_status(0))

    monkeypatch.setattr(pod.KubernetesPodOperator, "execute_sync", be_ended)
    with pytest.raises(AirflowException, match="ended"):
        task.execute(at_end)
    assert deleted == [pod.pod_name(at_end, "clean")]


# --- The node's reports -------------------------------------------------------------------------


@pytest.fixture
def prompt(pod: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Api]]:
    """Return a function that creates a pod manager of a fake API with given answers."""
    monkeypatch.setattr(pod, "POLL", 0.001)

    def create_manager(*pods: V1Pod) -> tuple[Any, Api]:
        api = Api(*pods)
        return pod.PromptPodManager(kube_client=api), api

    return create_manager


def running_pod() -> V1Pod:
    state = V1ContainerState(running=V1ContainerStateRunning())
    return build_pod(container_status("base", state), phase="Running")


def named_pod(name: str = "a-pod") -> V1Pod:
    pod = read_template()
    pod.metadata.name, pod.metadata.namespace = name, "airflow"
    return pod


def test_the_operator_uses_the_prompt_manager(pod: ModuleType, step: Any) -> None:
    step.__dict__["client"] = Api(V1Pod())
    assert type(step.pod_manager) is pod.PromptPodManager


def test_the_node_s_report_is_waited_for_and_no_longer(prompt: Callable[..., Any]) -> None:
    manager, api = prompt(
        running_pod(), running_pod(), running_pod(), build_pod(terminated_status(0))
    )
    assert manager.container_is_running(named_pod(), "base") is False
    assert api.reads == 4
    assert manager.container_is_running(named_pod(), "base") is False
    assert api.reads == 5


def test_a_container_that_goes_on_runs(
    pod: ModuleType, prompt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "REPORT_SECONDS", 0.05)
    manager, api = prompt(running_pod())
    assert manager.container_is_running(named_pod(), "base") is True
    assert api.reads > 2


def test_completion_is_seen_without_the_provider_s_pauses(
    prompt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = build_pod(terminated_status(0), phase="Succeeded")
    manager, api = prompt(running_pod(), running_pod(), over)
    module = importlib.import_module("airflow.providers.cncf.kubernetes.utils.pod_manager")
    monkeypatch.setattr(module.time, "sleep", lambda s: pytest.fail("a pause") if s >= 1 else None)
    assert manager.await_pod_completion(named_pod()) is over
    assert api.reads == 3


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (80, "Failed")])
def test_a_container_that_has_ended_is_the_end_of_its_pod(
    code: int, phase: str, prompt: Callable[..., Any]
) -> None:
    """The node says so a second before it reports the pod's phase."""
    manager, _ = prompt(running_pod(), build_pod(terminated_status(code), phase="Running"))
    assert manager.await_pod_completion(named_pod()).status.phase == phase


@pytest.mark.parametrize(
    ("one", "over"),
    [
        (running_pod(), False),
        (build_pod(phase="Pending"), False),
        (build_pod(terminated_status(0), phase="Succeeded"), True),
        (build_pod(terminated_status(1)), True),
    ],
)
def test_when_a_pod_is_over(one: V1Pod, over: bool, prompt: Callable[..., Any]) -> None:
    manager, _ = prompt(one)
    assert (manager.find_ended(named_pod()) is not None) is over


def test_events_of_an_earlier_pod_of_the_same_name_are_left_out(
    prompt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = named_pod()
    now.metadata.uid = "now"
    manager, api = prompt(now)
    events = [
        SimpleNamespace(message=text, involved_object=SimpleNamespace(uid=uid))
        for text, uid in (("killed", "before"), ("started", "now"), ("node", None))
    ]
    asked: list[dict[str, Any]] = []

    def list_events(**arguments: Any) -> Any:
        asked.append(arguments)
        return SimpleNamespace(items=list(events))

    monkeypatch.setattr(api, "list_namespaced_event", list_events, raising=False)
    assert [event.message for event in manager.read_pod_events(named_pod()).items] == ["started"]
    assert manager.read_pod_events(named_pod(), resource_version="7").items == [events[1]]
    assert asked[0]["field_selector"] == "involvedObject.name=a-pod"
    assert asked[1]["resource_version"] == "7"


# --- The DAG ------------------------------------------------------------------------------------


def parse_dag(
    runtime: str, monkeypatch: pytest.MonkeyPatch, file: str = "dataset_pipeline.py"
) -> Any:
    """Parse the file and return its DAG, which the file binds to no name."""
    dag_type = importlib.import_module("airflow.sdk").DAG
    enter, entered = dag_type.__enter__, []

    def record_and_enter(dag: Any) -> Any:
        entered.append(dag)
        return enter(dag)

    monkeypatch.setattr(dag_type, "__enter__", record_and_enter)
    monkeypatch.setenv("STEP_RUNTIME", runtime)
    monkeypatch.delitem(sys.modules, "steps", raising=False)  # it is bound to a runtime
    runpy.run_path(str(TREE / "dags" / file))
    del sys.modules["steps"]  # monkeypatch would restore this one
    (dag,) = entered
    return dag


def step_command(task: Any) -> list[str]:
    """Return the command of a step, on either runtime."""
    return list(task.argv)


@pytest.mark.parametrize(
    ("runtime", "operator"), [("pod", "StepPodOperator"), ("process", "ProcessOperator")]
)
def test_a_dag_has_the_same_steps_wherever_they_run(
    runtime: str, operator: str, pod: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = parse_dag(runtime, monkeypatch)
    assert dag.dag_id == "dataset_pipeline"
    assert {type(task).__name__ for task in dag.tasks} == {operator}
    assert {t.task_id: step_command(t) for t in dag.tasks} == {
        task_id: ["dataset-steps", *words] for task_id, words in STEPS.items()
    }
    for task in dag.tasks:
        key = {"KEY_COLUMN": "{{ params.key or '' }}"} if task.task_id == "modify_data" else {}
        assert task.variables == {**RUN, **key}
        assert {"argv", "variables"} <= set(task.template_fields)
        assert (task.retries, task.retry_delay.total_seconds()) == (10, 3)
        assert task.execution_timeout.total_seconds() == 3600
        assert not task.do_xcom_push
    order = [(task.task_id, set(task.downstream_task_ids)) for task in dag.topological_sort()]
    ids = list(STEPS)
    assert order == [(ids[0], {ids[1]}), (ids[1], {ids[2]}), (ids[2], set())]


@pytest.mark.parametrize("runtime", ["pod", "process"])
def test_the_etl_workflow_s_steps(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is kept for the hours of the DAG's param, and both params are validated."""
    dag = parse_dag(runtime, monkeypatch, "etl_workflow.py")
    assert {t.task_id: step_command(t) for t in dag.tasks} == {
        "pull": ["dataset-steps", "pull", "dataset"],
        **{name: ["dataset-steps", name] for name in ("extract", "transform", "load")},
    }
    for task in dag.tasks:
        assert task.variables["KEEP_HOURS"] == "{{ params.keep_hours }}"
    assert dag.get_task("transform").memory == "256Mi"
    if runtime == "pod":
        assert {t.keep_hours for t in dag.tasks} == {"{{ params.keep_hours }}"}
        assert {t.on_finish_action.value for t in dag.tasks} == {"keep_pod"}
    (asset,) = dag.get_task("load").outlets
    assert asset.uri == "s3://lab-datasets/results/etl_workflow/employee_summary.json"
    assert dag.params.dump() == {"copies": 1, "keep_hours": 24}
    assert dag.max_active_runs == 1
    for copies in (0, 10_001, 1.5, "2", True, None):
        with pytest.raises(ParamValidationError):
            dag.params.get_param("copies").resolve(copies)
    for keep in (-1, "24", 169, None):
        with pytest.raises(ParamValidationError):
            dag.params.get_param("keep_hours").resolve(keep)


@pytest.mark.parametrize("runtime", ["pod", "process"])
def test_the_training_s_steps(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data that was asked for is pulled; the training has a template of its own."""
    dag = parse_dag(runtime, monkeypatch, "ml_training_pipeline.py")
    steps = {t.task_id: t for t in dag.tasks if hasattr(t, "step")}
    assert {name: step_command(t)[:2] for name, t in steps.items()} == {
        "pull": ["dataset-steps", "pull"],
        "prepare_features": ["model-steps", "prepare"],
        "train_model": ["model-steps", "train"],
        "validate_model": ["model-steps", "validate"],
        "version_model": ["dataset-steps", "publish"],
    }
    assert step_command(steps["version_model"])[2:] == [
        "model",
        "--file=models/attrition.schema.json",
        "--metrics=models/attrition.metrics.json",
        "--result=model.json",
        "--message=train",
    ]
    assert steps["pull"].variables["DATA_COMMIT"] == "{{ params.data_commit }}"
    templates = {name: t.step.template for name, t in steps.items()}
    assert templates == {
        "pull": "step",
        "prepare_features": "model",
        "train_model": "training",
        "validate_model": "model",
        "version_model": "step",
    }


@pytest.mark.parametrize("runtime", ["pod", "process"])
def test_the_readings_steps_are_a_stranger_s(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They know where their data is by the variables that each step has, and nothing else."""
    dag = parse_dag(runtime, monkeypatch, "readings_pipeline.py")
    assert {t.task_id: step_command(t) for t in dag.tasks} == {
        "pull": ["dataset-steps", "pull", "readings", "--optional"],
        "collect_readings": ["reading-steps", "collect"],
        "summarise_readings": ["reading-steps", "summarise"],
        "publish": [
            *("dataset-steps", "publish", "readings", "readings_summary"),
            "--message=add a day to",
        ],
    }
    for name in ("collect_readings", "summarise_readings"):
        step = dag.get_task(name).step
        assert not step.is_the_kit_s
        assert not step.repeatable
        assert set(step.data_sets) >= {"readings", "readings_summary"}
    for day in ("yesterday", "2026-13-01", 1):
        with pytest.raises(ParamValidationError):
            dag.params.get_param("day").resolve(day)


def test_how_the_operator_is_set(step: Any) -> None:
    assert step.namespace == "airflow"
    assert step.reattach_on_restart
    assert (step.in_cluster, step.get_logs, step.random_name_suffix) == (True, True, False)
    assert step.on_finish_action.value == "delete_pod"
    assert not step.deferrable


def test_an_unknown_runtime_is_no_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"runtimes\.cloud"):
        parse_dag("cloud", monkeypatch)
