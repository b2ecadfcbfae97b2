"""Running DAGs by Airflow's REST API, and following them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from lab.errors import AccessError, ConfError, DagError, RunError, ServiceError
from lab.model import Access, Run
from lab.wait import NotYet, until

if TYPE_CHECKING:
    from airflow_client.client import ApiClient, TaskInstanceResponse

ENDED = {"success", "failed"}
POLL = 0.3  # seconds between two looks at a run
CALL_SECONDS = 30
LOG_LINES = 60
LOGINS, LOGIN_PAUSE = 4, 0.7  # tries, and seconds between them


@contextmanager
def calling(lab: Access) -> Iterator[ApiClient]:
    """An authenticated client of Airflow's API. Raises AccessError and ServiceError."""
    from airflow_client.client import ApiClient, Configuration
    from urllib3.exceptions import HTTPError

    try:
        with ApiClient(Configuration(host=lab.airflow_url, access_token=token(lab))) as client:
            yield client
    except HTTPError as error:
        raise ServiceError(
            f"Airflow's API does not answer at {lab.airflow_url}: {error}", "lab up restarts it"
        ) from error


def token(lab: Access) -> str:
    """A token for the lab's Airflow account. Raises AccessError and ServiceError.

    A refusal is asked about again: Airflow gives one, too, when its database was restarted and the
    connection that it kept is broken.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(AccessError),
        stop=stop_after_attempt(LOGINS),
        wait=wait_fixed(LOGIN_PAUSE),
        reraise=True,
    )
    return retrying(log_in, lab)


def log_in(lab: Access) -> str:
    """A token, asked for once."""
    login = {"username": lab.airflow_user, "password": lab.airflow_password}
    try:
        reply = requests.post(f"{lab.airflow_url}/auth/token", json=login, timeout=CALL_SECONDS)
    except requests.RequestException as error:
        raise ServiceError(
            f"Airflow does not answer at {lab.airflow_url}: {error}", "lab up restarts it"
        ) from error
    if reply.status_code == 401:
        raise AccessError(
            f"Airflow refused the account {lab.airflow_user!r}", "its password is in `lab env`"
        )
    reply.raise_for_status()
    return str(reply.json()["access_token"])


def parse_conf(text: str | None) -> dict[str, Any]:
    """The conf in `text`. Raises ConfError when it is not a JSON object."""
    example = """give an object, for example: --conf '{"note": "nightly"}'"""
    try:
        conf = json.loads(text or "{}", parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfError(f"the conf is not JSON: {error}", example) from error
    if not isinstance(conf, dict):
        raise ConfError(f"the conf is a JSON {type(conf).__name__}, not an object", example)
    return conf


def refuse_constant(name: str) -> None:
    """Raises ValueError: Python reads NaN and Infinity, but JSON has no such numbers."""
    raise ValueError(f"{name} is no JSON number")


def trigger(lab: Access, dag_id: str, conf: Mapping[str, Any]) -> Run:
    """A run that Airflow has accepted. Raises DagError when there is no such DAG, and ConfError."""
    from airflow_client.client import DagRunApi, TriggerDAGRunPostBody
    from airflow_client.client.exceptions import ApiException

    with calling(lab) as client:
        body = TriggerDAGRunPostBody(conf=dict(conf), logical_date=None)
        try:
            response = DagRunApi(client).trigger_dag_run(
                dag_id, body, _request_timeout=CALL_SECONDS
            )
        except ApiException as error:
            raise refusal(client, dag_id, error) from error
        return run_of(response)


def refusal(client: ApiClient, dag_id: str, error: Any) -> Exception:
    """What Airflow's refusal to start a run means."""
    if error.status == 404:
        known = ", ".join(dag_ids(client)) or "none"
        return DagError(f"there is no DAG {dag_id!r}", f"the lab has: {known}; see lab status")
    detail = " ".join(str(error.body).split())[:300]
    if error.status in {400, 422}:
        return ConfError(f"{dag_id} refuses this conf: {detail}", "see the DAG's params in the UI")
    if error.status == 409:
        return RunError(f"{dag_id} has such a run already: {detail}", "choose another run id")
    return ServiceError(f"Airflow answered {error.status}: {detail}", "lab logs airflow-api-server")


def dag_ids(client: ApiClient) -> list[str]:
    """The DAGs that Airflow knows."""
    from airflow_client.client import DAGApi

    found = DAGApi(client).get_dags(limit=100, _request_timeout=CALL_SECONDS).dags
    return sorted(dag.dag_id for dag in found)


def import_errors(lab: Access) -> dict[str, str]:
    """The DAG files that can't be parsed, and why."""
    from airflow_client.client import ImportErrorApi

    with calling(lab) as client:
        found = ImportErrorApi(client).get_import_errors(_request_timeout=CALL_SECONDS)
        return {e.filename: e.stack_trace for e in found.import_errors}


def known_dags(lab: Access) -> list[str]:
    """The DAGs that can be run."""
    with calling(lab) as client:
        return dag_ids(client)


def await_dag(lab: Access, dag_id: str, version: str, timeout: float) -> None:
    """Airflow has parsed the DAG at this commit: runs from now on are of that version.

    Raises ServiceError after `timeout` seconds, DagError when the DAG's file can't be parsed.
    """
    from airflow_client.client import DAGApi
    from airflow_client.client.exceptions import NotFoundException

    def known() -> None:
        with calling(lab) as client:
            try:
                now = DAGApi(client).get_dag(dag_id, _request_timeout=CALL_SECONDS).bundle_version
            except NotFoundException:
                now = None
        if now != version:
            refuse_broken(lab, f"{dag_id}.py")
            raise NotYet(f"Airflow has {dag_id} at {now}, the newest commit is {version}")

    until(known, what=dag_id, timeout=timeout, interval=0.2)


def refuse_broken(lab: Access, file: str) -> None:
    """Raises DagError when Airflow could not parse the file."""
    for name, why in import_errors(lab).items():
        if name.endswith(file):
            raise DagError(
                f"{name} can't be parsed: {why.strip().splitlines()[-1]}", "mend the file"
            )


def run_of(response: Any) -> Run:
    return Run(
        response.dag_run_id, response.dag_id, str(response.state.value), response.bundle_version
    )


def find(lab: Access, dag_id: str, run_id: str) -> Run | None:
    """A run that Airflow knows, or None."""
    from airflow_client.client import DagRunApi
    from airflow_client.client.exceptions import NotFoundException

    with calling(lab) as client:
        try:
            return run_of(
                DagRunApi(client).get_dag_run(dag_id, run_id, _request_timeout=CALL_SECONDS)
            )
        except NotFoundException:
            return None


def follow(lab: Access, run: Run, timeout: float, show: Callable[[str], object] = str) -> Run:
    """The run, ended in success; `show` has had a line for each change of a task's state.

    Raises RunError when it failed, with the failed task's log, or did not end in `timeout` seconds.
    A server that is being restarted meanwhile is waited for.
    """
    deadline = time.monotonic() + timeout
    seen: dict[str, str] = {}

    def ended() -> Run:
        now = look(lab, run, seen, show)
        if now.state not in ENDED:
            raise NotYet(f"{run.id} is {now.state}")
        return now

    def ended_or_later() -> Run:
        try:
            return ended()
        except ServiceError as error:
            raise NotYet(str(error)) from error

    try:
        last = until(
            ended_or_later, what=run.id, timeout=deadline - time.monotonic(), interval=POLL
        )
    except ServiceError as error:
        raise RunError(
            f"{run.id} of {run.dag_id} did not end in {timeout:.0f} s: {error.__cause__}",
            "lab status; lab logs airflow-scheduler",
        ) from error
    if last.state != "success":
        raise failed(lab, last)
    return last


def look(lab: Access, run: Run, seen: dict[str, str], show: Callable[[str], object]) -> Run:
    """The run as it is now; shows each task whose state is not what `seen` says, and notes it."""
    from airflow_client.client import DagRunApi

    with calling(lab) as client:
        response = DagRunApi(client).get_dag_run(run.dag_id, run.id, _request_timeout=CALL_SECONDS)
        for task in tasks(client, run):
            state = describe(task)
            if seen.get(task.task_id) != state:
                seen[task.task_id] = state
                show(f"{task.task_id:<16} {state}")
        return run_of(response)


def describe(task: TaskInstanceResponse) -> str:
    state = task.state.value if task.state else "waiting"
    attempt = f" (attempt {task.try_number})" if task.try_number > 1 else ""
    seconds = f" in {task.duration:.1f} s" if task.duration and state in ENDED else ""
    return f"{state}{seconds}{attempt}"


def tasks(client: ApiClient, run: Run) -> list[TaskInstanceResponse]:
    """The run's task instances, in the order in which they began."""
    from airflow_client.client import TaskInstanceApi

    found = TaskInstanceApi(client).get_task_instances(
        run.dag_id, run.id, _request_timeout=CALL_SECONDS
    )
    late = (1, "")
    return sorted(
        found.task_instances,
        key=lambda task: (0, task.start_date.isoformat()) if task.start_date else late,
    )


def failed(lab: Access, run: Run) -> RunError:
    """The error of a failed run: which task, and the end of its log."""
    with calling(lab) as client:
        broken = [t.task_id for t in tasks(client, run) if t.state and t.state.value == "failed"]
    shown = "\n".join(f"--- log of {name}\n{log(lab, run, name)}" for name in broken[:1])
    return RunError(
        f"{run.id} of {run.dag_id} failed in {', '.join(broken) or 'no task'}\n{shown}",
        f"the whole log is in the UI: {lab.airflow_url}/dags/{run.dag_id}/runs/{run.id}",
    )


def log(lab: Access, run: Run, task_id: str) -> str:
    """The end of what the last attempt of a task has printed."""
    from airflow_client.client import TaskInstanceApi

    with calling(lab) as client:
        api = TaskInstanceApi(client)
        task = api.get_task_instance(run.dag_id, run.id, task_id, _request_timeout=CALL_SECONDS)
        found = api.get_log(
            run.dag_id, run.id, task_id, task.try_number, _request_timeout=CALL_SECONDS
        )
    return "\n".join(log_lines(found.content.actual_instance)[-LOG_LINES:])


def log_lines(content: Any) -> list[str]:
    """A log as lines of text; Airflow gives structured events or plain strings."""
    return [str(getattr(entry, "event", entry)) for entry in content or []]
