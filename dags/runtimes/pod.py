"""Steps as pods of a cluster, made from one of its PodTemplates."""

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

from runtimes import (
    HOPELESS,
    KEEP_HOURS,
    bytes_from_quantity,
    memory_setting,
    out_of_memory_message,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

EXECUTOR = "KubernetesExecutor"
NAMESPACE = "airflow"
CONTAINER = "base"
NOT_FOUND, CONFLICT = 404, 409
ENDED = ("Succeeded", "Failed")
KEPT = "kept"  # the label of a pod that is not deleted when it ends
# Annotations that name a pod's run; a label would cut long names short.
IDENTITY = {"dag_id": "{{ dag.dag_id }}", "run_id": "{{ run_id }}"}
POLL = 0.2  # seconds between two looks at a pod
REPORT_SECONDS = 2  # how long a node may take to report that a container ended
PAUSE = 1  # seconds between two attempts to create a pod whose name is taken
GONE_SECONDS = 60  # how long the pod of a killed attempt may take to disappear
UNREAD_SECONDS = 3600  # how long a pod that its operator has not read is kept at least
NAME = 40  # characters of a pod's name that are for people


class StepPodOperator(KubernetesPodOperator):
    """Runs a step in a pod; succeeds only when the node reports that the step ended with code 0.

    The pod's name is derived from the run and the task, so a task never has two pods: an attempt
    whose scheduler was killed leaves one behind, and the next attempt reattaches to it or waits
    until it is gone. Exit code 65 fails the task for good, and so does running out of memory; any
    other code but 0 is retried.

    With `keep_hours` the pod of the task's last attempt is kept for inspection, until a later run
    of the DAG finds it older than that. Pods of earlier attempts are deleted: their name is what
    keeps two from running at once, and their logs, states and events are in the attempts' logs.
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
        self.full_pod_spec = self.read_template()
        try:
            super().execute(context)
        except AirflowException as error:
            self.explain_failure(context, error)
            raise
        refuse_unproven(self.remote_pod)

    def read_template(self) -> V1Pod:
        """Return the pod of the cluster's PodTemplate, with the step's own memory."""
        found = self.client.read_namespaced_pod_template(self.template_name, NAMESPACE).template
        if self.memory:
            set_memory(found.spec.containers[0], self.memory)
        return V1Pod(metadata=V1ObjectMeta(labels=found.metadata.labels), spec=found.spec)

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """Create the pod as the provider does, but wait for that of an attempt that is ending."""
        retrying = Retrying(
            retry=retry_if_exception(is_conflict),
            stop=stop_after_delay(GONE_SECONDS),
            wait=wait_fixed(PAUSE),
            reraise=True,
        )
        return retrying(self.find_or_create_pod, pod_request_obj, context)

    def find_or_create_pod(self, request: V1Pod, context: Context) -> V1Pod:
        """Return the task's only pod: a running one, or a new one.

        Delete a kept pod that has ended: the provider would take its end for the new attempt's.
        Raise ApiException (409, a conflict) until it is gone.
        """
        if self.keep_hours is not None and (ended := self.find_ended_pod(request.metadata.name)):
            self.log.info("The pod of an earlier attempt goes: %s", ended.metadata.name)
            self.remove(ended)
            raise ApiException(status=CONFLICT, reason="the pod of an earlier attempt is going")
        return super().get_or_create_pod(request, context)

    def find_ended_pod(self, name: str) -> V1Pod | None:
        """Return the pod of that name if it exists and has ended."""
        try:
            found = self.client.read_namespaced_pod(name, NAMESPACE)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return found if found.status.phase in ENDED else None

    def sweep(self, context: Context, keep_hours: float) -> None:
        """Delete pods of the DAG's earlier runs that were kept for longer than `keep_hours`.

        A failure does not fail the step: the next run finds what is left.
        """
        mine = self._get_ti_pod_labels(context)
        selector = f"{KEPT}=True,dag_id={mine['dag_id']},run_id!={mine['run_id']}"
        try:
            found = self.client.list_namespaced_pod(NAMESPACE, label_selector=selector).items
            for pod in found:
                if pod.status.phase in ENDED and is_expired(pod, keep_hours):
                    self.log.info("Kept for %s hours: %s goes", keep_hours, pod.metadata.name)
                    self.remove(pod)
        except (ApiException, HTTPError) as error:
            self.log.warning("Pods of earlier runs could not be removed: %s", error)

    def remove(self, pod: V1Pod) -> None:
        """Delete this very pod, and no later one of its name."""
        only = V1DeleteOptions(preconditions=V1Preconditions(uid=pod.metadata.uid))
        try:
            self.client.delete_namespaced_pod(pod.metadata.name, NAMESPACE, body=only)
        except ApiException as error:
            if error.status not in {NOT_FOUND, CONFLICT}:
                raise

    def explain_failure(self, context: Context, error: AirflowException) -> None:
        """Raise a clearer error than the provider's if the node reported why the step ended."""
        ended = terminated_state(self.remote_pod)
        if ended is not None and ended.reason == "OOMKilled":
            limit = self.remote_pod.spec.containers[0].resources.limits["memory"]
            what = memory_setting(context) if self.memory else self.template_memory_setting()
            raise AirflowFailException(out_of_memory_message(self.task_id, limit, what)) from error
        if ended is not None and ended.exit_code == HOPELESS:
            raise AirflowFailException("no retry can help, the step's error is above") from error

    def template_memory_setting(self) -> str:
        """Return where the memory limit of every step of this template is set."""
        file = f"manifests/base/templates/{self.template_name}"
        return f"resources.limits.memory in {file}, then lab up"


class PromptPodManager(PodManager):
    """A manager that polls a pod for its end every 0.2 s; the provider's does every two seconds."""

    def create_pod(self, pod: V1Pod) -> V1Pod:
        """Create the pod as the provider does, but raise at once when the name is taken."""
        return self.run_pod_async(pod)

    def await_pod_completion(self, pod: V1Pod, *args: Any, **kwargs: Any) -> V1Pod:
        Retrying(retry=retry_if_result(lambda done: not done), wait=wait_fixed(POLL))(
            self.is_over, pod
        )
        return super().await_pod_completion(pod, *args, **kwargs)

    def read_pod_events(self, pod: V1Pod, *args: Any, **kwargs: Any) -> Any:
        """Return this pod's events, not those of an earlier attempt's pod of the same name."""
        found = super().read_pod_events(pod, *args, **kwargs)
        uid = self.read_pod(pod).metadata.uid
        found.items = [event for event in found.items if event.involved_object.uid == uid]
        return found

    def container_is_running(self, pod: V1Pod, container_name: str) -> bool:
        """Return whether the container runs, after waiting for the node to report its end.

        The node reports it a moment after the log has ended; on the first answer alone, the
        provider would pause, and read the log's end a second time.
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
    """Return whether the name is taken, by an earlier attempt's pod that is being deleted."""
    return isinstance(error, ApiException) and error.status == CONFLICT


def pod_name(context: Context) -> str:
    """Return a name: the same for each attempt of a run's task, and another for each task."""
    ti = context["ti"]
    identity = "\0".join(map(str, (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{ti.dag_id}-{ti.task_id}".lower())[:NAME].strip("-")
    return f"{readable or 'step'}-{digest}"


def terminated_state(pod: V1Pod | None) -> Any:
    """Return the terminated state of the step's container, or None if its node reported none."""
    statuses = (pod.status.container_statuses if pod and pod.status else None) or []
    return next((s.state.terminated for s in statuses if s.name == CONTAINER and s.state), None)


def refuse_unproven(pod: V1Pod | None) -> None:
    """Raise AirflowException unless the step is known to have ended with code 0.

    A pod that was killed may look finished to its operator; the task is then retried, and the step
    itself finds out what is left to do.
    """
    ended = terminated_state(pod)
    if ended is None or ended.exit_code != 0:
        raise AirflowException("nobody saw the step end with code 0: its pod was killed")


def set_memory(container: V1Container, memory: str) -> None:
    """Set the container's memory request and limit; other resources stay the template's."""
    known = container.resources or V1ResourceRequirements()
    known.limits = {**(known.limits or {}), "memory": memory}
    known.requests = {**(known.requests or {}), "memory": memory}
    container.resources = known


def is_expired(pod: V1Pod, keep_hours: float) -> bool:
    """Return whether a pod that has ended was kept for long enough.

    One that its operator has not read yet is kept for UNREAD_SECONDS at least.
    """
    ended = terminated_state(pod)
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
    """Return the task that runs a console script of the template's image in a pod of its own.

    Raise ValueError when `memory` is not a quantity.
    """
    if memory:
        bytes_from_quantity(memory)
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
