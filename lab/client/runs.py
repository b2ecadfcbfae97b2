"""Starting and following DAG runs through Airflow's REST API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from lab.errors import AccessError, ConfError, DagError, RunError, ServiceError
from lab.model import ENDED, Access, BrokenFile, Outcome, Run
from lab.wait import NotYet, wait_until

if TYPE_CHECKING:
    from airflow_client.client import ApiClient, DAGResponse, TaskInstanceResponse

POLL = 0.3  # seconds between two polls of a run
CALL_SECONDS = 30
LOG_LINES = 60
RETURNED = "return_value"  # the XCom that holds what a task returned
STALE_ERROR_SECONDS = 10  # after a push, a file's error may still be that of the earlier commit
ANY = "~"  # how Airflow's API spells "every DAG"
T = TypeVar("T")
STAGING_BUNDLE = "pipelines"  # the bundle whose DAGs have no prefix
PAGE = 100  # entries in one of Airflow's answers
LOGINS, LOGIN_PAUSE = 4, 0.7  # tries, and seconds between them


@contextmanager
def api_client(lab: Access) -> Iterator[ApiClient]:
    """Yield an authenticated client of Airflow's API. Raises AccessError and ServiceError."""
    from airflow_client.client import ApiClient, Configuration
    from airflow_client.client.exceptions import ServiceException
    from urllib3.exceptions import HTTPError

    try:
        with ApiClient(
            Configuration(host=lab.airflow_url, access_token=fetch_token(lab))
        ) as client:
            yield client
    except HTTPError as error:
        raise ServiceError(
            f"Airflow's API does not answer at {lab.airflow_url}: {error}", "lab up restarts it"
        ) from error
    except ServiceException as error:
        raise ServiceError(
            f"Airflow answered {error.status}: {error.reason}", "lab logs airflow-api-server"
        ) from error


def fetch_token(lab: Access) -> str:
    """Return a token for the lab's Airflow account. Raises AccessError and ServiceError.

    A refusal is retried: Airflow refuses, too, when its database was restarted and the connection
    that it kept is broken.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(AccessError),
        stop=stop_after_attempt(LOGINS),
        wait=wait_fixed(LOGIN_PAUSE),
        reraise=True,
    )
    return retrying(log_in, lab)


def log_in(lab: Access) -> str:
    """Log in once and return the token."""
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
    """Parse the conf in `text`. Raises ConfError when it is not a JSON object."""
    example = """give an object, for example: --conf '{"note": "nightly"}'"""
    try:
        conf = json.loads(text or "{}", parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfError(f"the conf is not JSON: {error}", example) from error
    if not isinstance(conf, dict):
        raise ConfError(f"the conf is a JSON {type(conf).__name__}, not an object", example)
    return conf


def refuse_constant(name: str) -> None:
    """Raise ValueError: Python reads NaN and Infinity, but JSON has no such numbers."""
    raise ValueError(f"{name} is no JSON number")


def trigger(lab: Access, dag_id: str, conf: Mapping[str, Any]) -> Run:
    """Start a run; return it once Airflow has accepted it.

    Raises DagError when there is no such DAG, and ConfError when the DAG refuses the conf.
    """
    from airflow_client.client import DagRunApi, TriggerDAGRunPostBody
    from airflow_client.client.exceptions import ApiException

    with api_client(lab) as client:
        body = TriggerDAGRunPostBody(conf=dict(conf), logical_date=None)
        try:
            response = DagRunApi(client).trigger_dag_run(
                dag_id, body, _request_timeout=CALL_SECONDS
            )
        except ApiException as error:
            raise error_from_refusal(client, dag_id, error) from error
        return run_from_response(response)


def error_from_refusal(client: ApiClient, dag_id: str, error: Any) -> Exception:
    """Return the error that Airflow's refusal to start a run stands for."""
    if error.status == 404:
        known = ", ".join(list_dag_ids(client)) or "none"
        return DagError(f"there is no DAG {dag_id!r}", f"the lab has: {known}; see lab status")
    detail = " ".join(str(error.body).split())[:300]
    if error.status in {400, 422}:
        return ConfError(f"{dag_id} refuses this conf: {detail}", "see the DAG's params in the UI")
    if error.status == 409:
        return RunError(f"{dag_id} has such a run already: {detail}", "choose another run id")
    return ServiceError(f"Airflow answered {error.status}: {detail}", "lab logs airflow-api-server")


def list_dag_ids(client: ApiClient) -> list[str]:
    """List the ids of the DAGs that Airflow knows."""
    return sorted(dag.dag_id for dag in list_dags(client))


def list_dags(client: ApiClient) -> list[DAGResponse]:
    """List the DAGs that can be run, as Airflow describes them."""
    from airflow_client.client import DAGApi

    return fetch_all_pages(partial(DAGApi(client).get_dags, order_by=["dag_id"]), "dags")


def fetch_all_pages(listing: Callable[..., Any], entries: str) -> list[Any]:
    """Return the `entries` of all pages of a listing, in its order."""
    found: list[Any] = []
    while True:
        page = listing(limit=PAGE, offset=len(found), _request_timeout=CALL_SECONDS)
        here = getattr(page, entries)
        found += here
        if not here or len(found) >= page.total_entries:
            return found


def dags_by_bundle(lab: Access) -> dict[str, list[str]]:
    """Return the ids of the DAGs that can be run, by the bundle that they come from."""
    found: dict[str, list[str]] = {}
    with api_client(lab) as client:
        for dag in list_dags(client):
            found.setdefault(dag.bundle_name or "", []).append(dag.dag_id)
    return {bundle: sorted(names) for bundle, names in sorted(found.items())}


def list_broken_files(lab: Access) -> list[BrokenFile]:
    """List the DAG files that can't be parsed. The DAGs of all others run."""
    with api_client(lab) as client:
        return list_import_errors(client)


def list_import_errors(client: ApiClient) -> list[BrokenFile]:
    """List the files that Airflow can't parse, with its errors."""
    from airflow_client.client import ImportErrorApi

    order = ["bundle_name", "filename"]
    listing = partial(ImportErrorApi(client).get_import_errors, order_by=order)
    found = fetch_all_pages(listing, "import_errors")
    return [BrokenFile(e.bundle_name or "", e.filename, e.stack_trace) for e in found]


def wait_for_dag(lab: Access, dag_id: str, version: str, timeout: float) -> None:
    """Wait until Airflow has parsed the DAG at this commit: later runs are of that version.

    Raises ServiceError after `timeout` seconds, DagError when the DAG's file can't be parsed.
    """
    started = time.monotonic()

    def check_version() -> None:
        now = call_or_not_yet(find_dag_version, lab, dag_id)
        if now != version:
            if time.monotonic() - started > STALE_ERROR_SECONDS:
                refuse_broken(lab, dag_id)
            raise NotYet(f"Airflow has {dag_id} at {now}, the newest commit is {version}")

    wait_until(check_version, what=dag_id, timeout=timeout, interval=0.2)


def call_or_not_yet(ask: Callable[..., T], *arguments: Any) -> T:
    """Return Airflow's answer; raise NotYet when it does not answer yet, or not for a moment."""
    try:
        return ask(*arguments)
    except (ServiceError, AccessError) as error:
        raise NotYet(error.what) from error


def wait_for_files(lab: Access, files: Collection[str], version: str, timeout: float) -> list[str]:
    """Wait until Airflow has parsed these files at this commit, or says why it can't.

    Return the files of which it says nothing after `timeout` seconds: it may find no DAG in them.
    """
    silent = sorted(files)

    def check_files() -> None:
        silent[:] = sorted(set(files) - call_or_not_yet(list_processed_files, lab, version))
        if silent:
            raise NotYet(f"Airflow has yet to parse {', '.join(silent)}")

    with suppress(ServiceError):
        wait_until(check_files, what="the DAGs", timeout=timeout, interval=0.3)
    return silent


def list_processed_files(lab: Access, version: str) -> set[str]:
    """Return the staging bundle's files that are parsed at this commit, or can't be parsed."""
    with api_client(lab) as client:
        found = [dag for dag in list_dags(client) if dag.bundle_name == STAGING_BUNDLE]
        broken = {each.file for each in list_import_errors(client) if each.bundle == STAGING_BUNDLE}
    return broken | {str(dag.relative_fileloc) for dag in found if dag.bundle_version == version}


def find_dag_version(lab: Access, dag_id: str) -> str | None:
    """Return the commit that a run of the DAG would use now, or None where there is no such DAG."""
    from airflow_client.client import DAGApi
    from airflow_client.client.exceptions import NotFoundException

    with api_client(lab) as client:
        try:
            found = DAGApi(client).get_dag(dag_id, _request_timeout=CALL_SECONDS)
        except NotFoundException:
            return None
    return None if found.is_stale else str(found.bundle_version)


def refuse_broken(lab: Access, dag_id: str) -> None:
    """Raise DagError when Airflow could not parse the DAG's file, which is named after the DAG."""
    bundle, _, name = dag_id.rpartition(".")
    for broken in list_broken_files(lab):
        if (broken.bundle, broken.file) == (bundle or STAGING_BUNDLE, f"{name}.py"):
            raise DagError(str(broken), "mend the file")


def run_from_response(response: Any) -> Run:
    return Run(
        response.dag_run_id, response.dag_id, str(response.state.value), response.bundle_version
    )


def list_events(lab: Access, asset: str) -> list[dict[str, Any]]:
    """List the `extra` of each event of the asset, the oldest first."""
    return [dict(event.extra or {}) for event in list_asset_events(lab, asset)]


def list_asset_events(lab: Access, asset: str) -> list[Any]:
    """List Airflow's own records of the asset's events, the oldest first.

    A failure is retried for CALL_SECONDS: Airflow 3.3 answers 500 as long as a run that one of the
    events started is queued.
    """
    listed = partial(call_or_not_yet, request_events, lab, asset)
    found = wait_until(listed, what=f"the list of events of {asset}", timeout=CALL_SECONDS)
    return [event for event in found if event.name == asset]  # Airflow was asked for a prefix


def request_events(lab: Access, asset: str) -> list[Any]:
    from airflow_client.client import AssetApi

    chosen = {"order_by": ["timestamp"], "name_prefix_pattern": asset}
    with api_client(lab) as client:
        return fetch_all_pages(partial(AssetApi(client).get_asset_events, **chosen), "asset_events")


def list_runs(lab: Access, dag_id: str) -> list[Run]:
    """List the newest runs of the DAG, or of ANY, the newest first."""
    from airflow_client.client import DagRunApi

    with api_client(lab) as client:
        found = DagRunApi(client).get_dag_runs(
            dag_id, limit=PAGE, order_by=["-run_after"], _request_timeout=CALL_SECONDS
        )
        return [run_from_response(response) for response in found.dag_runs]


def find_run(lab: Access, dag_id: str, run_id: str) -> Run | None:
    """Return the run, or None when Airflow does not know it."""
    from airflow_client.client import DagRunApi
    from airflow_client.client.exceptions import NotFoundException

    with api_client(lab) as client:
        try:
            return run_from_response(
                DagRunApi(client).get_dag_run(dag_id, run_id, _request_timeout=CALL_SECONDS)
            )
        except NotFoundException:
            return None


def follow(lab: Access, run: Run, timeout: float, show: Callable[[str], object] = str) -> Run:
    """Wait until the run has succeeded and return it; call `show` with each change of a task.

    Raises RunError when it failed, with the failed task's log, or did not end in `timeout` seconds.
    A server that is being restarted meanwhile is waited for.
    """
    deadline = time.monotonic() + timeout
    seen: dict[str, str] = {}

    def poll() -> Run:
        now = poll_run(lab, run, seen, show)
        if not now.has_ended:
            raise NotYet(f"{run.id} is {now.state}")
        return now

    def poll_or_not_yet() -> Run:
        try:
            return poll()
        except ServiceError as error:
            raise NotYet(str(error)) from error

    try:
        last = wait_until(
            poll_or_not_yet, what=run.id, timeout=deadline - time.monotonic(), interval=POLL
        )
    except ServiceError as error:
        raise RunError(
            f"{run.id} of {run.dag_id} did not end in {timeout:.0f} s: {error.__cause__}",
            "lab status; lab logs airflow-scheduler",
        ) from error
    if last.state != "success":
        raise error_from_failed_run(lab, last)
    return last


def poll_run(lab: Access, run: Run, seen: dict[str, str], show: Callable[[str], object]) -> Run:
    """Return the run as it is now; show each task whose state differs from `seen`; update it."""
    from airflow_client.client import DagRunApi

    with api_client(lab) as client:
        response = DagRunApi(client).get_dag_run(run.dag_id, run.id, _request_timeout=CALL_SECONDS)
        for task in list_tasks(client, run):
            state = describe_task(task)
            if seen.get(task.task_id) != state:
                seen[task.task_id] = state
                show(f"{task.task_id:<16} {state}")
        return run_from_response(response)


def describe_task(task: TaskInstanceResponse) -> str:
    state = task.state.value if task.state else "waiting"
    attempt = f" (attempt {task.try_number})" if task.try_number > 1 else ""
    seconds = f" in {task.duration:.1f} s" if task.duration and state in ENDED else ""
    return f"{state}{seconds}{attempt}"


def list_tasks(client: ApiClient, run: Run) -> list[TaskInstanceResponse]:
    """List the run's task instances, in the order in which they began."""
    from airflow_client.client import TaskInstanceApi

    listing = partial(TaskInstanceApi(client).get_task_instances, run.dag_id, run.id)
    found: list[TaskInstanceResponse] = fetch_all_pages(listing, "task_instances")
    late = (1, "")
    return sorted(
        found, key=lambda task: (0, task.start_date.isoformat()) if task.start_date else late
    )


def read_outcomes(lab: Access, run: Run) -> dict[str, Outcome]:
    """Return the outcome of each task of the run, by task id."""
    with api_client(lab) as client:
        return {
            task.task_id: Outcome(
                task.state.value if task.state else None,
                task.try_number,
                task.start_date,
                task.end_date,
            )
            for task in list_tasks(client, run)
        }


def read_xcom(lab: Access, run: Run, task_id: str) -> Any:
    """Return the XCom that a task returned."""
    from airflow_client.client import XComApi

    with api_client(lab) as client:
        found = XComApi(client).get_xcom_entry(
            run.dag_id, task_id, run.id, RETURNED, _request_timeout=CALL_SECONDS
        )
    value = found.actual_instance.value
    return getattr(value, "actual_instance", value)


def error_from_failed_run(lab: Access, run: Run) -> RunError:
    """Return the error of a failed run: which tasks failed, and the end of the first one's log."""
    with api_client(lab) as client:
        broken = [
            t.task_id for t in list_tasks(client, run) if t.state and t.state.value == "failed"
        ]
    shown = "\n".join(f"--- log of {name}\n{read_log(lab, run, name)}" for name in broken[:1])
    return RunError(
        f"{run.id} of {run.dag_id} failed in {', '.join(broken) or 'no task'}\n{shown}",
        f"the whole log is in the UI: {lab.airflow_url}/dags/{run.dag_id}/runs/{run.id}",
    )


def read_log(lab: Access, run: Run, task_id: str) -> str:
    """Return the end of what the last attempt of a task printed, and why it failed if it did."""
    from airflow_client.client import TaskInstanceApi

    with api_client(lab) as client:
        api = TaskInstanceApi(client)
        task = api.get_task_instance(run.dag_id, run.id, task_id, _request_timeout=CALL_SECONDS)
        # The client's own model of a log has no exceptions in it.
        reply = api.get_log_without_preload_content(
            run.dag_id, run.id, task_id, task.try_number, _request_timeout=CALL_SECONDS
        )
    return "\n".join(log_lines(json.loads(reply.data).get("content"))[-LOG_LINES:])


def log_lines(content: Any) -> list[str]:
    """Return a log as lines of text; Airflow gives structured events or plain strings."""
    return [line for entry in content or [] for line in lines_from_entry(entry)]


def lines_from_entry(entry: Any) -> list[str]:
    """Return the lines of a log entry: its event, then the messages of its exception and causes."""
    if not isinstance(entry, dict):
        return [str(entry)]
    errors = entry.get("error_detail") or []
    return [str(entry.get("event")), *(f"{e['exc_type']}: {e['exc_value']}" for e in errors)]
