"""Steps as pods of a cluster, made from one of its PodTemplates."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
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
    V1OwnerReference,
    V1Pod,
    V1PodTemplate,
    V1Preconditions,
    V1ResourceRequirements,
)
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)
from urllib3.exceptions import HTTPError

from dataset_steps.contract import HOPELESS, OVERTAKEN, run_key
from runtimes import (
    KEEP_HOURS,
    Step,
    again,
    bytes_from_quantity,
    memory_setting,
    out_of_memory_message,
    workspace_variables,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

EXECUTOR = "KubernetesExecutor"
NAMESPACE = "airflow"
CONTAINER = "base"
NOT_FOUND, CONFLICT = 404, 409
ENDED = ("Succeeded", "Failed")
KEPT = "kept"  # the label of a pod that is not deleted when it ends
WITHIN = "runs-again"  # the label of a step's pod that another step's task has made: that step
SHARED = "shared"  # the volume with the runs' workspaces
# Annotations that name a pod's run; a label would cut long names short.
IDENTITY = {"dag_id": "{{ dag.dag_id }}", "run_id": "{{ run_id }}"}
# The variable with the seconds that a pod may take to be given a node, and again to start there:
# where nodes are added first, it takes minutes.
START_SECONDS, START_SECONDS_HERE = "STEP_START_SECONDS", 120
POLL = 0.2  # seconds between two looks at a pod
REPORT_SECONDS = 2  # how long a node may take to report that a container ended
PAUSE = 1  # seconds between two attempts to create a pod whose name is taken
GONE_SECONDS = 60  # how long the pod of a killed attempt may take to disappear
UNREAD_SECONDS = 3600  # how long a pod that its operator has not read is kept at least
# What the container's runtime says where there is nothing to start.
NO_COMMAND = re.compile(r"exec: .*(executable file not found|no such file or directory)")
NAME = 40  # characters of a pod's name that are for people


class StepPodOperator(KubernetesPodOperator):
    """Runs a step in a pod; succeeds only when the node reports that the step ended with code 0.

    The pod's name is derived from the run and the task, so a task never has two pods: an attempt
    whose scheduler was killed leaves one behind, and the next attempt reattaches to it or waits
    until it is gone. Exit code 65 fails the task for good, and so does running out of memory; any
    other code but 0 is retried.

    Steps that have to run again do so within this task, one after another, in pods of their own:
    their names and labels are derived from both tasks. None is at work beside this task's own pod.

    With `keep_hours` the pod of the task's last attempt is kept for inspection, until a later run
    of the DAG finds it older than that. Pods of earlier attempts are deleted: their name is what
    keeps two from running at once, and their logs, states and events are in the attempts' logs.
    """

    pod: Any
    pod_request_obj: Any
    remote_pod: Any
    # Not the provider's: what it would render was not written to be a template.
    template_fields: Sequence[str] = ("argv", "variables", "image", "annotations", "keep_hours")

    def __init__(self, *, step: Step, **kwargs: Any) -> None:
        super().__init__(
            namespace=NAMESPACE,
            image=step.image,
            labels={KEPT: "True"} if step.keep else {},
            annotations=dict(IDENTITY),
            random_name_suffix=False,
            in_cluster=True,
            get_logs=True,
            startup_check_interval_seconds=POLL,
            log_events_on_startup=False,
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
            on_finish_action="keep_pod" if step.keep else "delete_pod",
            do_xcom_push=False,
            **kwargs,
        )
        self.step = step
        self.argv = list(step.argv)
        self.variables = dict(step.variables)
        self.template_name = step.template
        self.memory = step.memory
        self.keep_hours = KEEP_HOURS if step.keep else None
        self.within: str | None = None  # the task that runs this step again
        self.at_work: StepPodOperator | None = None  # whose pod this task waits for

    @cached_property
    def pod_manager(self) -> PodManager:
        return PromptPodManager(kube_client=self.client, callbacks=self.callbacks)

    def execute(self, context: Context) -> None:
        if self.keep_hours is not None and not self.upstream_task_ids:
            self.sweep(context, float(self.keep_hours))
        if context["ti"].try_number > 1:
            self.end_orphans(context)
        if not self.is_still_at_work(context):
            for one in again.list_first(self, context):
                self.run_again(one, context)
        self.run_own(context)

    def run_own(self, context: Context) -> None:
        """Run this task's own step; when it was overtaken, run those before it and it again."""
        again.run_until_published(
            self,
            context,
            is_of_its_image=self.has_image_for,
            run=partial(self.run_pod, context),
            run_other=partial(self.run_again, context=context),
        )

    def has_image_for(self, step: Step) -> bool:
        """Return whether a step can run in this one's container, with no more than that has."""
        mine, its = ((one.template, one.image, one.memory) for one in (self.step, step))
        return mine == its

    def run_again(self, other: StepPodOperator, context: Context) -> None:
        """Run another step of this DAG, rendered for this run, in a pod within this task."""
        self.log.info("again: %s", " ".join(other.argv))
        other.within = self.task_id
        other.labels = {**other.labels, WITHIN: make_safe_label_value(other.task_id)}
        self.at_work = other
        other.run_pod(context)
        self.at_work = None

    def run_pod(self, context: Context, more: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Run the step's pod to its end; return whether it ended with code 0, or was overtaken.

        Raise AirflowException for any other end.
        """
        # Those of an earlier pod of this task, which has ended.
        self.pod, self.pod_request_obj, self.remote_pod = None, None, None
        self.prepare_pod(context, more)
        try:
            # Not `execute`: that is for Airflow's own runner, which knows of this task alone.
            self.execute_sync(context)
        except AirflowException as error:
            if self.step.reruns and has_ended_with(self.remote_pod, OVERTAKEN):
                return False
            self.explain_failure(context, error)
            raise
        refuse_unproven(self.remote_pod)
        return True

    def prepare_pod(self, context: Context, more: Mapping[str, str]) -> None:
        """Set what the provider makes the pod of: its name, its template, its environment."""
        ti = context["ti"]
        self.name = pod_name(context, self.task_id if self.within else None)
        seconds = int(os.environ.get(START_SECONDS, START_SECONDS_HERE))
        self.startup_timeout_seconds = self.schedule_timeout_seconds = seconds
        self.full_pod_spec = self.read_template()
        (container,) = self.full_pod_spec.spec.containers
        shared = next(one.mount_path for one in container.volume_mounts if one.name == SHARED)
        workspace = f"{shared}/runs/{run_key(ti.dag_id, ti.run_id)}/repository"
        if not self.step.is_the_kit_s and again.has_workspace(self):
            container.working_dir = workspace
        command, *arguments = map(literal, self.argv)
        self.cmds, self.arguments = [command], arguments
        own = {name: literal(value) for name, value in {**self.variables, **more}.items()}
        data_sets = {name: literal(path) for name, path in self.step.data_sets.items()}
        where = workspace_variables(self.step, data_sets, workspace, "$(DATASET_PATH)")
        self.env_vars = {**own, **where}

    def read_template(self) -> V1Pod:
        """Return the pod of the cluster's PodTemplate, with the step's own memory."""
        origin = self.client.read_namespaced_pod_template(self.template_name, NAMESPACE)
        found = origin.template
        if self.memory:
            set_memory(found.spec.containers[0], self.memory)
        metadata = V1ObjectMeta(labels=found.metadata.labels, owner_references=[owner_of(origin)])
        return V1Pod(metadata=metadata, spec=found.spec)

    def is_still_at_work(self, context: Context) -> bool:
        """Return whether the pod of a killed attempt is at work on this task's own step."""
        return context["ti"].try_number > 1 and self.find_pod_at_work(pod_name(context))

    def find_pod_at_work(self, name: str) -> bool:
        try:
            return is_at_work(self.client.read_namespaced_pod(name, NAMESPACE))
        except ApiException as error:
            if error.status == NOT_FOUND:
                return False
            raise

    def end_orphans(self, context: Context) -> None:
        """Delete the pods of steps that a killed attempt of this task ran again, and wait for it.

        They run again from the first one. Raise AirflowException when one stays.
        """
        labels = self._get_ti_pod_labels(context, include_try_number=False)
        selector = ",".join([*(f"{k}={v}" for k, v in sorted(labels.items())), WITHIN])
        Retrying(
            retry=retry_if_result(bool),
            stop=stop_after_delay(GONE_SECONDS),
            wait=wait_fixed(PAUSE),
            retry_error_callback=refuse_orphans,
        )(self.delete_orphans, selector)

    def delete_orphans(self, selector: str) -> list[V1Pod]:
        """Delete the pods that are at work, and return them: they go a moment later."""
        found = self.client.list_namespaced_pod(NAMESPACE, label_selector=selector).items
        left = [pod for pod in found if is_at_work(pod)]
        for pod in left:
            self.log.info("The pod of an earlier attempt goes: %s", pod.metadata.name)
            self.remove(pod)
        return left

    def on_kill(self) -> None:
        """Delete the pod that is at work: that of a step that runs again, or the task's own."""
        if self.at_work:
            self.at_work.on_kill()
        else:
            super().on_kill()

    def _build_find_pod_label_selector(self, *args: Any, **kwargs: Any) -> str:
        """Return the provider's selector, without the pods of other steps that run again here."""
        found: str = super()._build_find_pod_label_selector(*args, **kwargs)
        return found if self.within else f"{found},!{WITHIN}"

    def _get_pod_from_task_state_store(self, context: Context) -> V1Pod | None:
        """Return the pod that the provider has noted, if it is this step's: a task may have two."""
        found = super()._get_pod_from_task_state_store(context)
        return found if found and found.metadata.name == self.name else None

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
        return None if is_at_work(found) else found

    def sweep(self, context: Context, keep_hours: float) -> None:
        """Delete pods of the DAG's earlier runs that were kept for longer than `keep_hours`.

        A failure does not fail the step: the next run finds what is left.
        """
        mine = self._get_ti_pod_labels(context)
        selector = f"{KEPT}=True,dag_id={mine['dag_id']},run_id!={mine['run_id']}"
        try:
            found = self.client.list_namespaced_pod(NAMESPACE, label_selector=selector).items
            for pod in found:
                if not is_at_work(pod) and is_expired(pod, keep_hours):
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
        if has_ended_with(self.remote_pod, HOPELESS):
            whose = f"{self.task_id}, which ran again, says: " if self.within else ""
            text = f"{whose}no retry can help, the step's error is above"
            raise AirflowFailException(text) from error
        if ended is not None and NO_COMMAND.search(ended.message or ""):
            image = self.remote_pod.spec.containers[0].image
            raise AirflowFailException(
                f"{self.task_id}: the image {image} has no command {self.argv[0]}: name it as in "
                "the image, or another image"
            ) from error

    def template_memory_setting(self) -> str:
        """Return where the memory limit of every step of this template is set."""
        file = f"manifests/base/templates/{self.template_name}"
        return f"resources.limits.memory in {file}, then lab up"


class PromptPodManager(PodManager):
    """A manager that polls a pod for its end every 0.2 s; the provider's does every two seconds.

    A step's pod has one container and is never restarted: it has ended as soon as the node reports
    that the container has. The node reports the pod's own phase 1.2 s later.
    """

    def create_pod(self, pod: V1Pod) -> V1Pod:
        """Create the pod as the provider does, but raise at once when the name is taken."""
        return self.run_pod_async(pod)

    def await_pod_completion(self, pod: V1Pod, *args: Any, **kwargs: Any) -> V1Pod:
        retrying = Retrying(retry=retry_if_result(lambda ended: not ended), wait=wait_fixed(POLL))
        found: V1Pod = retrying(self.find_ended, pod)
        if found.status.phase in ENDED:
            return found
        return super().await_pod_completion(pod, *args, **kwargs)

    def find_ended(self, pod: V1Pod) -> V1Pod | None:
        """Return the pod when it has ended or can't begin; with the phase that it is about to have.

        None as long as it may go on.
        """
        found = self.read_pod(pod)
        if ended := terminated_state(found):
            found.status.phase = ENDED[ended.exit_code != 0]
        is_over = found.status.phase in ENDED or detect_pod_terminate_early_issues(found)
        return found if is_over else None

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


def owner_of(template: V1PodTemplate) -> V1OwnerReference:
    """Return the reference by which a pod belongs to its template, and goes when that goes.

    Amazon's agent enforces network policies reliably only for pods that have an owner: "Limit Pod
    traffic with Kubernetes network policies" in EKS's user guide.
    """
    name, uid = template.metadata.name, template.metadata.uid
    return V1OwnerReference(api_version="v1", kind="PodTemplate", name=name, uid=uid)


def is_conflict(error: BaseException) -> bool:
    """Return whether the name is taken, by an earlier attempt's pod that is being deleted."""
    return isinstance(error, ApiException) and error.status == CONFLICT


def pod_name(context: Context, other: str | None = None) -> str:
    """Return a name: the same for each attempt of a run's task, and another for each task.

    `other` is a task whose step runs again within that of the context: such a pod has a name of
    its own, too.
    """
    ti = context["ti"]
    parts = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, *([other] if other else []))
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
    words = f"{ti.dag_id}-{other}-again" if other else f"{ti.dag_id}-{ti.task_id}"
    readable = re.sub(r"[^a-z0-9]+", "-", words.lower())[:NAME].strip("-")
    return f"{readable or 'step'}-{digest}"


def literal(text: object) -> str:
    """Return the text as a pod has to be given it: Kubernetes replaces `$(NAME)` in it."""
    return str(text).replace("$", "$$")


def refuse_orphans(state: RetryCallState) -> NoReturn:
    """Raise AirflowException for the pods that stay: the next attempt waits again."""
    left = state.outcome.result() if state.outcome else []
    raise AirflowException(
        f"{', '.join(pod.metadata.name for pod in left)} of an earlier attempt still works after "
        f"{GONE_SECONDS} s, and no other step may in the run's workspace beside it"
    )


def terminated_state(pod: V1Pod | None) -> Any:
    """Return the terminated state of the step's container, or None if its node reported none."""
    statuses = (pod.status.container_statuses if pod and pod.status else None) or []
    return next((s.state.terminated for s in statuses if s.name == CONTAINER and s.state), None)


def is_at_work(pod: V1Pod) -> bool:
    """Return whether the step's container may still run: its end is reported before its pod's."""
    return pod.status.phase not in ENDED and terminated_state(pod) is None


def has_ended_with(pod: V1Pod | None, code: int) -> bool:
    """Return whether the node has reported that the step ended with this exit code."""
    ended = terminated_state(pod)
    return ended is not None and ended.exit_code == code


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


def task(task_id: str, step: Step, **options: Any) -> BaseOperator:
    """Return the task that runs a command of an image in a pod of its own.

    Raise ValueError when the memory is not a quantity.
    """
    if step.memory:
        bytes_from_quantity(step.memory)
    operator: BaseOperator = StepPodOperator(task_id=task_id, step=step, **options)
    return operator
