"""Steps as pods of a cluster, made of its PodTemplate `step`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import (
    PodManager,
    detect_pod_terminate_early_issues,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiException, V1ObjectMeta, V1Pod
from tenacity import Retrying, retry_if_exception, retry_if_result, stop_after_delay, wait_fixed

from runtimes import HOPELESS

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

EXECUTOR = "KubernetesExecutor"
NAMESPACE = "airflow"
CONTAINER = "base"
CONFLICT = 409
ENDED = ("Succeeded", "Failed")
POLL = 0.2  # seconds between two looks at a pod
REPORT_SECONDS = 2  # how long a node may take to report that a container ended
PAUSE = 1  # seconds between two tries to take a name
GONE_SECONDS = 60  # how long a killed attempt's pod may take to be gone
NAME = 40  # characters of a pod's name that are for people


class StepPodOperator(KubernetesPodOperator):
    """Runs a step in a pod; green only when the node says that the step ended with code 0.

    The pod's name is made of the run and the task, so a task never has two pods: an attempt whose
    scheduler was killed leaves one behind, and the next attempt takes it up or waits until it is
    gone. Exit code 65 fails the task for good, any other but 0 is tried again.
    """

    def __init__(
        self, *, argv: Sequence[str], variables: dict[str, str], template: str, **kwargs: Any
    ) -> None:
        super().__init__(
            namespace=NAMESPACE,
            cmds=[argv[0]],
            arguments=list(argv[1:]),
            env_vars=variables,
            random_name_suffix=False,
            in_cluster=True,
            get_logs=True,
            startup_check_interval_seconds=POLL,
            log_events_on_startup=False,
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
            on_finish_action="delete_pod",
            do_xcom_push=False,
            **kwargs,
        )
        self.template_name = template

    @cached_property
    def pod_manager(self) -> PodManager:
        return PromptPodManager(kube_client=self.client, callbacks=self.callbacks)

    def execute(self, context: Context) -> None:
        self.name = pod_name(context)
        self.full_pod_spec = self.template()
        try:
            super().execute(context)
        except AirflowException as error:
            explain(self.remote_pod, error)
            raise
        refuse_unproven(self.remote_pod)

    def template(self) -> V1Pod:
        """The pod that the cluster's PodTemplate describes."""
        found = self.client.read_namespaced_pod_template(self.template_name, NAMESPACE).template
        return V1Pod(metadata=V1ObjectMeta(labels=found.metadata.labels), spec=found.spec)

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """As the provider does it, but the pod of an attempt that is ending is waited for."""
        retrying = Retrying(
            retry=retry_if_exception(is_conflict),
            stop=stop_after_delay(GONE_SECONDS),
            wait=wait_fixed(PAUSE),
            reraise=True,
        )
        return retrying(super().get_or_create_pod, pod_request_obj, context)


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


def explain(pod: V1Pod | None, error: AirflowException) -> None:
    """Raises a better error than the provider's where the node said why the step ended."""
    ended = terminated(pod)
    if ended is not None and ended.reason == "OOMKilled":
        limit = pod.spec.containers[0].resources.limits["memory"] if pod else "?"
        raise AirflowException(
            f"OOMKilled: the step needed more than its limit of {limit}; raise "
            f"resources.limits.memory in manifests/base/step-template.yaml, then lab up"
        ) from error
    if ended is not None and ended.exit_code == HOPELESS:
        raise AirflowFailException("no retry can help, the step's error is above") from error


def task(
    task_id: str,
    argv: Sequence[str],
    variables: dict[str, str],
    *,
    template: str,
    memory: str | None,  # noqa: ARG001
    keep: bool,  # noqa: ARG001
    **options: Any,
) -> BaseOperator:
    """The task that runs a console script of the template's image in a pod of its own."""
    operator: BaseOperator = StepPodOperator(
        task_id=task_id, argv=argv, variables=variables, template=template, **options
    )
    return operator
