"""Starting and following DAG runs through Airflow's REST API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from lab.errors import AccessError, ConfError, DagError, LabError, RunError, ServiceError
from lab.model import ENDED, Access, BrokenFile, Dag, Outcome, Run
from lab.wait import NotYet, wait_until

if TYPE_CHECKING:
    from airflow_client.client import (
        ApiClient,
        DAGDetailsResponse,
        DAGResponse,
        TaskInstanceResponse,
    )

POLL = 0.3  # seconds between two polls of a run
CALL_SECONDS = 30
LOG_LINES = 60
SOURCES, GROUP_END = "::group::Log message source details", "::endgroup::"  # Airflow's own lines
RETURNED = "return_value"  # the XCom that holds what a task returned
STALE_ERROR_SECONDS = 10  # after a push, a file's error may still be that of the earlier commit
OVER = ENDED | {"skipped", "upstream_failed", "removed"}  # a task's states
ANY = "~"  # how Airflow's API spells "every DAG"
T = TypeVar("T")
STAGING_BUNDLE = "pipelines"  # the bundle whose DAGs have no prefix
PAGE = 100  # entries in one of Airflow's answers
LOGINS, LOGIN_PAUSE = 4, 0.7  # tries, and seconds between them
GLANCE_SECONDS = 0.7  # for each of two requests, while somebody waits for the completion of a word


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

    A refusal is retried, and so is a failure: Airflow gives either, too, when its database was
    restarted and the connection that it kept is broken.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_an_answer),
        stop=stop_after_attempt(LOGINS),
        wait=wait_fixed(LOGIN_PAUSE),
        reraise=True,
    )
    return retrying(log_in, lab)


def is_an_answer(error: BaseException) -> bool:
    """Return whether Airflow itself has said no, instead of not answering at all."""
    return isinstance(error, AccessError) or isinstance(error.__cause__, requests.HTTPError)


def log_in(lab: Access, timeout: float = CALL_SECONDS) -> str:
    """Log in once and return the token."""
    login = {"username": lab.airflow_user, "password": lab.airflow_password}
    try:
        reply = requests.post(f"{lab.airflow_url}/auth/token", json=login, timeout=timeout)
    except requests.RequestException as error:
        raise ServiceError(
            f"Airflow does not answer at {lab.airflow_url}: {error}", "lab up restarts it"
        ) from error
    if reply.status_code == 401:
        raise AccessError(
            f"Airflow refused the account {lab.airflow_user!r}", "its password is in `lab env`"
        )
    try:
        reply.raise_for_status()
    except requests.HTTPError as error:
        raise ServiceError(
            f"Airflow answered {reply.status_code} to a login", "lab logs airflow-api-server"
        ) from error
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


def trigger(lab: Access, dag_id: str, conf: Mapping[str, Any], *, unpause: bool = False) -> Run:
    """Start a run; return it once Airflow has accepted it.

    Raises DagError when there is no such DAG or it is paused, and ConfError when the DAG refuses
    the conf. With `unpause` the DAG is unpaused, once it has accepted the conf.
    """
    from airflow_client.client import DagRunApi, TriggerDAGRunPostBody

    body = TriggerDAGRunPostBody(conf=dict(conf), logical_date=None)
    with api_client(lab) as client, translating_refusals(client, dag_id):
        if not unpause:
            refuse_paused(lab, client, dag_id)
        response = DagRunApi(client).trigger_dag_run(dag_id, body, _request_timeout=CALL_SECONDS)
        if unpause:
            set_unpaused(client, dag_id)
        return run_from_response(response)


def refuse_paused(lab: Access, client: ApiClient, dag_id: str) -> None:
    """Raise DagError when the DAG is paused: Airflow would accept a run and never begin it."""
    if is_paused(client, dag_id):
        raise DagError(
            f"{dag_id} is paused: a run would wait until somebody unpauses it",
            f"lab run {dag_id} --unpause (or the switch at {lab.airflow_url}/dags/{dag_id})",
        )


def is_paused(client: ApiClient, dag_id: str) -> bool:
    """Return whether the DAG is paused; one that there is no more, whose runs go on, is not."""
    from airflow_client.client import DAGApi
    from airflow_client.client.exceptions import NotFoundException

    with suppress(NotFoundException):
        return bool(DAGApi(client).get_dag(dag_id, _request_timeout=CALL_SECONDS).is_paused)
    return False


def unpause(lab: Access, dag_id: str) -> None:
    """Let the DAG's runs begin, waiting ones too. Raises DagError when there is no such DAG."""
    with api_client(lab) as client, translating_refusals(client, dag_id):
        set_unpaused(client, dag_id)


def set_unpaused(client: ApiClient, dag_id: str) -> None:
    from airflow_client.client import DAGApi, DAGPatchBody

    body = DAGPatchBody(is_paused=False)
    DAGApi(client).patch_dag(dag_id, body, _request_timeout=CALL_SECONDS)


@contextmanager
def translating_refusals(client: ApiClient, dag_id: str) -> Iterator[None]:
    """Raise what Airflow refuses to do with the DAG as the lab's errors."""
    from airflow_client.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        raise error_from_refusal(client, dag_id, error) from error


def error_from_refusal(client: ApiClient, dag_id: str, error: Any) -> Exception:
    """Return the error that Airflow's refusal stands for."""
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


def describe_dags(lab: Access) -> list[Dag]:
    """List the DAGs that can be run, by bundle and id."""
    with api_client(lab) as client:
        found = [Dag(d.dag_id, d.bundle_name or "", d.is_paused) for d in list_dags(client)]
    return sorted(found, key=lambda dag: (dag.bundle, dag.id))


def dags_by_bundle(lab: Access) -> dict[str, list[str]]:
    """Return the ids of the DAGs that can be run, by the bundle that they come from."""
    found: dict[str, list[str]] = {}
    for dag in describe_dags(lab):
        found.setdefault(dag.bundle, []).append(dag.id)
    return found


def glance_at_dag_ids(lab: Access) -> list[str]:
    """Return the ids of the first DAGs within a second; without Airflow's client, which is slow.

    Raises AccessError and ServiceError.
    """
    header = {"Authorization": f"Bearer {log_in(lab, GLANCE_SECONDS)}"}
    url = f"{lab.airflow_url}/api/v2/dags?limit={PAGE}&order_by=dag_id"
    try:
        reply = requests.get(url, headers=header, timeout=GLANCE_SECONDS)
        reply.raise_for_status()
        return [dag["dag_id"] for dag in reply.json()["dags"]]
    except (requests.RequestException, LookupError) as error:
        raise ServiceError(f"Airflow does not list its DAGs: {error}", "lab status") from error


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

    `show` is told, too, that the DAG is paused and the run can't go on, and when it can again.
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
        raise error_from_late_run(lab, run, timeout) from error
    if last.state != "success":
        raise error_from_failed_run(lab, last)
    return last


def poll_run(lab: Access, run: Run, seen: dict[str, str], show: Callable[[str], object]) -> Run:
    """Return the run as it is now; show each task whose state differs from `seen`; update it."""
    from airflow_client.client import DagRunApi

    with api_client(lab) as client:
        response = DagRunApi(client).get_dag_run(run.dag_id, run.id, _request_timeout=CALL_SECONDS)
        now, tasks = run_from_response(response), list_tasks(client, run)
        for task in tasks:
            state = describe_task(task)
            if seen.get(task.task_id) != state:
                seen[task.task_id] = state
                show(f"{task.task_id:<16} {state}")
        if not now.has_ended and not any(t.state and t.state.value == "running" for t in tasks):
            show_pause(client, run, seen, show)
        return now


def show_pause(
    client: ApiClient, run: Run, seen: dict[str, str], show: Callable[[str], object]
) -> None:
    """Show that the run waits because its DAG is paused, or no longer does; update `seen`."""
    key = ""  # no task is called so
    paused = is_paused(client, run.dag_id)
    if paused and key not in seen:
        seen[key] = "paused"
        show(f"{run.dag_id} is paused: this run waits until you type: lab unpause {run.dag_id}")
    if not paused and seen.pop(key, ""):
        show(f"{run.dag_id} is paused no more: this run goes on")


def error_from_late_run(lab: Access, run: Run, timeout: float) -> RunError:
    """Return the error of a run that did not end in time: all that Airflow knows of why."""
    from airflow_client.client.exceptions import ApiException

    try:
        with api_client(lab) as client:
            why, fix = explain_wait(client, run)
    except LabError as error:
        why, fix = error.what, error.fix
    except ApiException as error:
        why, fix = f"Airflow answered {error.status}: {error.reason}", "lab status"
    return RunError(f"{run.id} of {run.dag_id} did not end in {timeout:.0f} s: {why}", fix)


def explain_wait(client: ApiClient, run: Run) -> tuple[str, str]:
    """Return why the run has not ended, and what to do."""
    from airflow_client.client import DAGApi, DagRunApi, MonitorApi

    found = DagRunApi(client).get_dag_run(run.dag_id, run.id, _request_timeout=CALL_SECONDS)
    dag = DAGApi(client).get_dag_details(run.dag_id, _request_timeout=CALL_SECONDS)
    scheduler = MonitorApi(client).get_health(_request_timeout=CALL_SECONDS).scheduler
    state = found.state.value
    if dag.is_paused:
        return f"it is {state}, and {run.dag_id} is paused", f"lab unpause {run.dag_id}"
    if scheduler.status != "healthy":
        seen = scheduler.latest_scheduler_heartbeat or "nobody knows when"
        why = f"it is {state}, and Airflow's scheduler gave its last sign of life at {seen}"
        return why, "lab up starts it again if it has ended; lab logs airflow-scheduler"
    if state == "queued":
        return explain_queue(dag)
    tasks = (f"{t.task_id} is {describe_task(t)}" for t in list_tasks(client, run) if not_over(t))
    more = "lab status shows how it goes on; lab run --timeout SECONDS follows a run for longer"
    return f"it is {state}: {', '.join(tasks) or 'all tasks have ended'}", more


def explain_queue(dag: DAGDetailsResponse) -> tuple[str, str]:
    """Return why a run of the DAG is still queued, and what to do."""
    running, most = dag.active_runs_count or 0, dag.max_active_runs
    why = f"it is queued; {running} of at most {most} runs of {dag.dag_id} are running"
    if most is not None and running >= most:
        return why, "it begins when another one ends: lab status shows them"
    return why, "lab status; lab logs airflow-scheduler"


def not_over(task: TaskInstanceResponse) -> bool:
    return task.state is None or task.state.value not in OVER


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
    """Return the error of a failed run: its failed tasks, why the first one did, and its log."""
    with api_client(lab) as client:
        broken = [
            t.task_id for t in list_tasks(client, run) if t.state and t.state.value == "failed"
        ]
    what = f"{run.id} of {run.dag_id} failed in {', '.join(broken) or 'no task'}"
    if broken:
        entries = read_entries(lab, run, broken[0])
        what += f": {find_reason(entries)}\n--- log of {broken[0]}\n{end_of_log(entries)}"
    return RunError(
        what,
        f"the whole log is in the UI: {lab.airflow_url}/dags/{run.dag_id}/runs/{run.id}",
    )


def read_log(lab: Access, run: Run, task_id: str) -> str:
    """Return the end of what the last attempt of a task printed, and why it failed if it did."""
    return end_of_log(read_entries(lab, run, task_id))


def read_entries(lab: Access, run: Run, task_id: str) -> list[Any]:
    """Return the log of a task's last attempt: structured events, or plain strings."""
    from airflow_client.client import TaskInstanceApi

    with api_client(lab) as client:
        api = TaskInstanceApi(client)
        task = api.get_task_instance(run.dag_id, run.id, task_id, _request_timeout=CALL_SECONDS)
        # The client's own model of a log has no exceptions in it.
        reply = api.get_log_without_preload_content(
            run.dag_id, run.id, task_id, task.try_number, _request_timeout=CALL_SECONDS
        )
    entries: list[Any] = json.loads(reply.data).get("content") or []
    return entries


def find_reason(entries: Sequence[Any]) -> str:
    """Return what the last exception of a log says, or the log's last line without one."""
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("error_detail")]
    if found:
        return lines_from_entry(found[-1])[1].partition("\n")[0]
    told = [line for line in log_lines(entries) if not line.startswith("::")]
    return told[-1] if told else "it has no log"


def end_of_log(entries: Sequence[Any]) -> str:
    """Return the last lines of a log."""
    return "\n".join(log_lines(entries)[-LOG_LINES:])


def log_lines(entries: Sequence[Any]) -> list[str]:
    """Return a log as lines of text, without Airflow's list of the files that it is in."""
    lines = [line for entry in entries for line in lines_from_entry(entry)]
    if SOURCES in lines and GROUP_END in lines:
        del lines[lines.index(SOURCES) : lines.index(GROUP_END) + 1]
    return lines


def lines_from_entry(entry: Any) -> list[str]:
    """Return the lines of a log entry: its event, then the messages of its exception and causes."""
    if not isinstance(entry, dict):
        return [str(entry)]
    errors = entry.get("error_detail") or []
    return [str(entry.get("event")), *(f"{e['exc_type']}: {e['exc_value']}" for e in errors)]
