"""Steps as pods of a cluster, made of one of its PodTemplates."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import (
    PodManager,
    detect_pod_terminate_early_issues,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import (
    ApiException,
    V1Container,
    V1DeleteOptions,
    V1ObjectMeta,
    V1Pod,
    V1Preconditions,
    V1ResourceRequirements,
)
from tenacity import Retrying, retry_if_exception, retry_if_result, stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError

from runtimes import HOPELESS, KEEP_HOURS, bytes_of, memory_of, out_of_memory

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

EXECUTOR = "KubernetesExecutor"
NAMESPACE = "airflow"
CONTAINER = "base"
NOT_FOUND, CONFLICT = 404, 409
ENDED = ("Succeeded", "Failed")
KEPT = "kept"  # the label of a pod that is not deleted when it ends
# What a pod is of; a label would cut long names short.
IDENTITY = {"dag_id": "{{ dag.dag_id }}", "run_id": "{{ run_id }}"}
POLL = 0.2  # seconds between two looks at a pod
REPORT_SECONDS = 2  # how long a node may take to report that a container ended
PAUSE = 1  # seconds between two tries to take a name
GONE_SECONDS = 60  # how long a killed attempt's pod may take to be gone
UNREAD_SECONDS = 3600  # how long a pod is kept at least that its operator has not read
NAME = 40  # characters of a pod's name that are for people


class StepPodOperator(KubernetesPodOperator):
    """Runs a step in a pod; green only when the node says that the step ended with code 0.

    The pod's name is made of the run and the task, so a task never has two pods: an attempt whose
    scheduler was killed leaves one behind, and the next attempt takes it up or waits until it is
    gone. Exit code 65 fails the task for good, and so does too little memory; any other code but 0
    is tried again.

    With `keep_hours` the pod of the task's last attempt stays for reading, until a later run of
    the DAG finds it older than that. Earlier attempts' pods go: their name is what keeps two from
    running at once, and their logs, states and events are in the attempts' own logs.
    """

    template_fields: Sequence[str] = (*KubernetesPodOperator.template_fields, "keep_hours")

    def __init__(
        self,
        *,
        argv: Sequence[str],
        variables: dict[str, str],
        template: str,
        memory: str | None,
        keep_hours: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            namespace=NAMESPACE,
            cmds=[argv[0]],
            arguments=list(argv[1:]),
            env_vars=variables,
            labels={} if keep_hours is None else {KEPT: "True"},
            annotations=dict(IDENTITY),
            random_name_suffix=False,
            in_cluster=True,
            get_logs=True,
            startup_check_interval_seconds=POLL,
            log_events_on_startup=False,
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
            on_finish_action="delete_pod" if keep_hours is None else "keep_pod",
            do_xcom_push=False,
            **kwargs,
        )
        self.template_name = template
        self.memory = memory
        self.keep_hours = keep_hours

    @cached_property
    def pod_manager(self) -> PodManager:
        return PromptPodManager(kube_client=self.client, callbacks=self.callbacks)

    def execute(self, context: Context) -> None:
        if self.keep_hours is not None and not self.upstream_task_ids:
            self.sweep(context, float(self.keep_hours))
        self.name = pod_name(context)
        self.full_pod_spec = self.template()
        try:
            super().execute(context)
        except AirflowException as error:
            self.explain(context, error)
            raise
        refuse_unproven(self.remote_pod)

    def template(self) -> V1Pod:
        """The pod that the cluster's PodTemplate describes, with the step's own memory."""
        found = self.client.read_namespaced_pod_template(self.template_name, NAMESPACE).template
        if self.memory:
            give(found.spec.containers[0], self.memory)
        return V1Pod(metadata=V1ObjectMeta(labels=found.metadata.labels), spec=found.spec)

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """As the provider does it, but the pod of an attempt that is ending is waited for."""
        retrying = Retrying(
            retry=retry_if_exception(is_conflict),
            stop=stop_after_delay(GONE_SECONDS),
            wait=wait_fixed(PAUSE),
            reraise=True,
        )
        return retrying(self.the_pod, pod_request_obj, context)

    def the_pod(self, request: V1Pod, context: Context) -> V1Pod:
        """The task's only pod: one that is at work, or a new one.

        One that has ended is no longer kept: the provider would take its end for the new
        attempt's. Raises ApiException for a conflict until it is gone.
        """
        if self.keep_hours is not None and (ended := self.ended_pod(request.metadata.name)):
            self.log.info("The pod of an earlier attempt goes: %s", ended.metadata.name)
            self.remove(ended)
            raise ApiException(status=CONFLICT, reason="the pod of an earlier attempt is going")
        return super().get_or_create_pod(request, context)

    def ended_pod(self, name: str) -> V1Pod | None:
        """The pod of that name, if there is one and it has ended."""
        try:
            found = self.client.read_namespaced_pod(name, NAMESPACE)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return found if found.status.phase in ENDED else None

    def sweep(self, context: Context, keep_hours: float) -> None:
        """Pods that earlier runs of the DAG left for reading, longer ago than that, are gone.

        The step does not fail for it: what is left is found again by the next run.
        """
        mine = self._get_ti_pod_labels(context)
        selector = f"{KEPT}=True,dag_id={mine['dag_id']},run_id!={mine['run_id']}"
        try:
            found = self.client.list_namespaced_pod(NAMESPACE, label_selector=selector).items
            for pod in found:
                if pod.status.phase in ENDED and is_due(pod, keep_hours):
                    self.log.info("Kept for %s hours: %s goes", keep_hours, pod.metadata.name)
                    self.remove(pod)
        except (ApiException, HTTPError) as error:
            self.log.warning("Pods of earlier runs could not be removed: %s", error)

    def remove(self, pod: V1Pod) -> None:
        """This very pod is going, and no later one of its name."""
        only = V1DeleteOptions(preconditions=V1Preconditions(uid=pod.metadata.uid))
        try:
            self.client.delete_namespaced_pod(pod.metadata.name, NAMESPACE, body=only)
        except ApiException as error:
            if error.status not in {NOT_FOUND, CONFLICT}:
                raise

    def explain(self, context: Context, error: AirflowException) -> None:
        """Raises a better error than the provider's where the node said why the step ended."""
        ended = terminated(self.remote_pod)
        if ended is not None and ended.reason == "OOMKilled":
            limit = self.remote_pod.spec.containers[0].resources.limits["memory"]
            what = memory_of(context) if self.memory else self.memory_of_template()
            raise AirflowFailException(out_of_memory(self.task_id, limit, what)) from error
        if ended is not None and ended.exit_code == HOPELESS:
            raise AirflowFailException("no retry can help, the step's error is above") from error

    def memory_of_template(self) -> str:
        """Where the memory of every step of this template is said."""
        file = f"manifests/base/{self.template_name}-template.yaml"
        return f"resources.limits.memory in {file}, then lab up"


class PromptPodManager(PodManager):
    """Looks at a pod that ends five times a second; the provider's looks every two seconds."""

    def create_pod(self, pod: V1Pod) -> V1Pod:
        """As the provider does it, but a name that is taken is told at once."""
        return self.run_pod_async(pod)

    def await_pod_completion(self, pod: V1Pod, *args: Any, **kwargs: Any) -> V1Pod:
        Retrying(retry=retry_if_result(lambda done: not done), wait=wait_fixed(POLL))(
            self.is_over, pod
        )
        return super().await_pod_completion(pod, *args, **kwargs)

    def read_pod_events(self, pod: V1Pod, *args: Any, **kwargs: Any) -> Any:
        """This pod's events, not those of an earlier attempt's pod of the same name."""
        found = super().read_pod_events(pod, *args, **kwargs)
        uid = self.read_pod(pod).metadata.uid
        found.items = [event for event in found.items if event.involved_object.uid == uid]
        return found

    def container_is_running(self, pod: V1Pod, container_name: str) -> bool:
        """As the node says; it says that a container ended a moment after its log did.

        Believed too early, the provider would pause, and read the log's end a second time.
        """
        retrying = Retrying(
            retry=retry_if_result(bool),
            stop=stop_after_delay(REPORT_SECONDS),
            wait=wait_fixed(POLL),
            retry_error_callback=lambda _: True,
        )
        return bool(retrying(super().container_is_running, pod, container_name))

    def is_over(self, pod: V1Pod) -> bool:
        found = self.read_pod(pod)
        return found.status.phase in ENDED or bool(detect_pod_terminate_early_issues(found))


def is_conflict(error: BaseException) -> bool:
    """Whether the pod's name is taken: by the pod of an earlier attempt that is going."""
    return isinstance(error, ApiException) and error.status == CONFLICT


def pod_name(context: Context) -> str:
    """The same name for each attempt of a task of a run, and for no other task."""
    ti = context["ti"]
    identity = "\0".join(map(str, (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{ti.dag_id}-{ti.task_id}".lower())[:NAME].strip("-")
    return f"{readable or 'step'}-{digest}"


def terminated(pod: V1Pod | None) -> Any:
    """How the step's container ended, as its node reported it; None when nobody knows."""
    statuses = (pod.status.container_statuses if pod and pod.status else None) or []
    return next((s.state.terminated for s in statuses if s.name == CONTAINER and s.state), None)


def refuse_unproven(pod: V1Pod | None) -> None:
    """Raises AirflowException unless the step is known to have ended with code 0.

    A pod that was killed may look finished to its operator; the task is then tried again, and the
    step finds out itself what is left to do.
    """
    ended = terminated(pod)
    if ended is None or ended.exit_code != 0:
        raise AirflowException("nobody saw the step end with code 0: its pod was killed")


def give(container: V1Container, memory: str) -> None:
    """The container may use so much memory, and has it; what else it may stays the template's."""
    known = container.resources or V1ResourceRequirements()
    known.limits = {**(known.limits or {}), "memory": memory}
    known.requests = {**(known.requests or {}), "memory": memory}
    container.resources = known


def is_due(pod: V1Pod, keep_hours: float) -> bool:
    """Whether a pod that has ended was kept for long enough.

    One that its operator has not read is none yet that was left for people.
    """
    ended = terminated(pod)
    since = (ended and ended.finished_at) or pod.metadata.creation_timestamp
    age: float = max(0.0, (datetime.now(UTC) - since).total_seconds())
    read = pod.metadata.labels.get(StepPodOperator.POD_CHECKED_KEY) == "True"
    return age >= (keep_hours * 3600 if read else max(keep_hours * 3600, UNREAD_SECONDS))


def task(
    task_id: str,
    argv: Sequence[str],
    variables: dict[str, str],
    *,
    template: str,
    memory: str | None,
    keep: bool,
    **options: Any,
) -> BaseOperator:
    """The task that runs a console script of the template's image in a pod of its own.

    Raises ValueError when `memory` is no amount of it.
    """
    if memory:
        bytes_of(memory)
    operator: BaseOperator = StepPodOperator(
        task_id=task_id,
        argv=argv,
        variables=variables,
        template=template,
        memory=memory,
        keep_hours=KEEP_HOURS if keep else None,
        **options,
    )
    return operator
