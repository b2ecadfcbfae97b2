"""The conf of a run, its tasks and logs, and errors when Airflow can't be reached."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest

from lab.client import runs
from lab.errors import AccessError, ConfError, ServiceError
from lab.lab import Lab
from lab.model import Run
from tests.support.serving import Silent, serving


def build_lab(url: str) -> Lab:
    names = ("backend", "git_url", "git_user", "git_password", "s3_endpoint", "s3_bucket")
    more = (
        "git_page",
        "s3_access_key",
        "s3_secret_key",
        "s3_region",
        "s3_session_token",
        "dataset_path",
        "airflow_user",
        "airflow_password",
    )
    values: dict[str, Any] = {name: name for name in (*names, *more, "git_page")}
    return Lab(**values, airflow_url=url)


@contextmanager
def answering(code: int, body: object) -> Iterator[tuple[str, list[object]]]:
    """Serve one answer to every request; yield the URL and the list of the bodies received."""
    received: list[object] = []

    class Handler(Silent, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self.path)
            self.answer()

        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer()

        def answer(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with serving(Handler) as url:
        yield url, received


# --- Conf ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "{}", " { } "])
def test_no_conf_is_an_empty_one(text: str | None) -> None:
    assert runs.parse_conf(text) == {}


def test_a_conf_is_what_the_object_says() -> None:
    text = '{"note": "größer \\u00fc", "n": [1, 2.5, null, true], "o": {"x": "{{ ds }}"}}'
    assert runs.parse_conf(text) == {
        "note": "größer ü",
        "n": [1, 2.5, None, True],
        "o": {"x": "{{ ds }}"},
    }


@pytest.mark.parametrize(
    "text",
    ["{", "note=nightly", "{'note': 1}", '{"a": 1}}', '{"a": NaN}', '{"a": -Infinity}', "[" * 9999],
)
def test_a_conf_that_is_no_json_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfError, match="the conf is not JSON") as caught:
        runs.parse_conf(text)
    example = caught.value.fix.partition("--conf ")[2]
    assert runs.parse_conf(example.strip("'")) == {"note": "nightly"}


@pytest.mark.parametrize(
    ("text", "kind"), [("[]", "list"), ('"a"', "str"), ("1", "int"), ("null", "NoneType")]
)
def test_a_conf_that_is_no_object_is_refused(text: str, kind: str) -> None:
    with pytest.raises(ConfError, match=f"the conf is a JSON {kind}, not an object"):
        runs.parse_conf(text)


# --- Airflow's door -----------------------------------------------------------------------------


def test_a_token_is_asked_for_with_the_labs_account() -> None:
    with answering(201, {"access_token": "t0ken"}) as (url, received):
        assert runs.fetch_token(build_lab(url)) == "t0ken"
    assert received == [{"username": "airflow_user", "password": "airflow_password"}]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing wait between two logins."""
    monkeypatch.setattr(runs, "LOGIN_PAUSE", 0.01)


@pytest.mark.usefixtures("hasty")
def test_a_refused_account_is_an_access_error_without_the_password() -> None:
    with answering(401, {}) as (url, _), pytest.raises(AccessError) as caught:
        runs.fetch_token(build_lab(url))
    assert "'airflow_user'" in caught.value.what
    assert "airflow_password" not in caught.value.what


@pytest.mark.usefixtures("hasty")
def test_an_airflow_whose_database_was_restarted_is_asked_again() -> None:
    with answering(500, {}) as (url, received), pytest.raises(ServiceError) as caught:
        runs.fetch_token(build_lab(url))
    assert caught.value.what == "Airflow answered 500 to a login"
    assert len(received) == runs.LOGINS


def test_an_airflow_that_does_not_answer_is_a_service_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServiceError, match=f"Airflow does not answer at {url}"):
        runs.fetch_token(build_lab(url))


def test_the_ids_of_the_dags_are_had_at_a_glance() -> None:
    body = {"access_token": "t0ken", "dags": [{"dag_id": "a"}, {"dag_id": "b"}]}
    with answering(200, body) as (url, received):
        assert runs.glance_at_dag_ids(build_lab(url)) == ["a", "b"]
    assert received[1:] == ["/api/v2/dags?limit=100&order_by=dag_id"]


def test_a_glance_at_an_airflow_that_never_answers_is_a_short_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lab = build_lab(f"http://127.0.0.1:{listener.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(ServiceError):
            runs.glance_at_dag_ids(lab)
        assert time.monotonic() - began < 2


# --- Why a run waits ----------------------------------------------------------------------------


def stub_airflow(
    monkeypatch: pytest.MonkeyPatch, state: str, *, paused: bool = False, healthy: bool = True
) -> None:
    """Have Airflow say this of a run, of its DAG and of the scheduler."""
    heartbeat = "2026-11-21T22:17:22Z"
    scheduler = SimpleNamespace(
        status="healthy" if healthy else "unhealthy", latest_scheduler_heartbeat=heartbeat
    )
    dag = SimpleNamespace(dag_id="a_dag", is_paused=paused, active_runs_count=3, max_active_runs=16)
    said = {
        "DagRunApi.get_dag_run": SimpleNamespace(state=SimpleNamespace(value=state)),
        "DAGApi.get_dag_details": dag,
        "MonitorApi.get_health": SimpleNamespace(scheduler=scheduler),
    }
    for name, found in said.items():
        monkeypatch.setattr(f"airflow_client.client.{name}", lambda *_, found=found, **__: found)
    monkeypatch.setattr(runs, "list_tasks", lambda *_: [stub_task("a", "success"), stub_task("b")])


def stub_task(name: str, state: str | None = None) -> SimpleNamespace:
    value = SimpleNamespace(value=state) if state else None
    return SimpleNamespace(task_id=name, state=value, try_number=0, duration=None)


def explain(state: str) -> tuple[str, str]:
    client: Any = None
    return runs.explain_wait(client, Run("a run", "a_dag", state, None))


def test_a_paused_dag_explains_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_airflow(monkeypatch, "queued", paused=True, healthy=False)
    assert explain("queued") == ("it is queued, and a_dag is paused", "lab unpause a_dag")


def test_a_scheduler_without_a_heartbeat_explains_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_airflow(monkeypatch, "running", healthy=False)
    why, fix = explain("running")
    assert why.endswith("scheduler gave its last sign of life at 2026-11-21T22:17:22Z")
    assert "lab logs airflow-scheduler" in fix


def test_a_queued_run_is_told_how_many_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_airflow(monkeypatch, "queued")
    why, fix = explain("queued")
    assert why == "it is queued; 3 of at most 16 runs of a_dag are running"
    assert fix == "lab status; lab logs airflow-scheduler"


def test_a_running_run_is_told_what_its_tasks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_airflow(monkeypatch, "running")
    why, fix = explain("running")
    assert why == "it is running: b is waiting"
    assert "--timeout" in fix


def test_a_run_that_is_late_while_airflow_is_gone_says_that() -> None:
    run = Run("a run", "a_dag", "queued", None)
    error = runs.error_from_late_run(build_lab("http://127.0.0.1:9"), run, 5)
    assert error.what.startswith("a run of a_dag did not end in 5 s: Airflow does not answer")


# --- Tasks --------------------------------------------------------------------------------------


def test_all_tasks_of_a_large_run_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [SimpleNamespace(task_id=f"task-{n}", start_date=None) for n in range(250)]

    class Api:
        def __init__(self, client: object) -> None:
            """Accept any client."""

        def get_task_instances(self, *_: str, limit: int, offset: int, **__: float) -> object:
            page = known[offset : offset + limit]
            return SimpleNamespace(task_instances=page, total_entries=len(known))

    monkeypatch.setattr("airflow_client.client.TaskInstanceApi", Api)
    client: Any = None
    assert runs.list_tasks(client, Run("a run", "a_dag", "running", None)) == known


# --- Logs ---------------------------------------------------------------------------------------


def test_a_log_is_its_events_or_its_lines() -> None:
    events = [{"event": "pulling", "level": "info"}, "plain"]
    assert runs.log_lines(events) == ["pulling", "plain"]
    assert runs.log_lines([]) == []


def test_a_log_begins_with_what_the_task_printed() -> None:
    """Airflow tells first in which files the log is."""
    sources = {"event": "::group::Log message source details", "sources": ["a.log"]}
    end, more = {"event": "::endgroup::"}, {"event": "::group::Pre Execute"}
    assert runs.log_lines([sources, "a.log", end, more, end]) == [more["event"], end["event"]]


def test_a_log_says_why_a_task_failed() -> None:
    error = {"exc_type": "AirflowFailException", "exc_value": "no such column", "frames": []}
    cause = {"exc_type": "ValueError", "exc_value": "Job Role", "frames": []}
    entry = {"event": "Task failed with exception", "error_detail": [error, cause]}
    assert runs.log_lines([entry]) == [
        "Task failed with exception",
        "AirflowFailException: no such column",
        "ValueError: Job Role",
    ]


def test_why_a_task_failed_is_its_last_error_or_its_last_line() -> None:
    first = {"exc_type": "ConnectionError", "exc_value": "refused"}
    last = {"exc_type": "AirflowFailException", "exc_value": "no such column\nand more"}
    cause = {"exc_type": "KeyError", "exc_value": "a"}
    entries = [
        {"event": "again", "error_detail": [first]},
        {"event": "Task failed with exception", "error_detail": [last, cause]},
        {"event": "::group::Post Execute"},
    ]
    assert runs.find_reason(entries) == "AirflowFailException: no such column"
    assert runs.find_reason(["killed", *entries[2:]]) == "killed"
    assert runs.find_reason(entries[2:]) == "it has no log"


# --- What Airflow has parsed ----------------------------------------------------------------------


def test_files_are_waited_for_until_airflow_knows_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([set(), {"one.py"}, {"one.py", "two.py", "other.py"}])
    monkeypatch.setattr(runs, "list_processed_files", lambda *_: next(asked))
    assert (
        runs.wait_for_files(build_lab("http://127.0.0.1:9"), ["one.py", "two.py"], "c0", 30) == []
    )


def test_files_that_airflow_says_nothing_of_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "list_processed_files", lambda *_: {"one.py"})
    left = runs.wait_for_files(build_lab("http://127.0.0.1:9"), ["two.py", "one.py"], "c0", 0)
    assert left == ["two.py"]


def test_nothing_is_known_of_files_while_airflow_does_not_answer() -> None:
    assert runs.wait_for_files(build_lab("http://127.0.0.1:9"), ["one.py"], "c0", 0) == ["one.py"]
