"""A push reaches Airflow: a real api-server that receives it, and a real git that sends it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from lab import layout
from lab.backends.embedded.gitserver import announce, repositories
from lab.backends.embedded.services import airflow, gitserver
from lab.client.git import environment
from lab.config import KIT, PLUGINS
from lab.delivery import pushes
from lab.home.processes import STOP_SECONDS
from lab.shell import run
from lab.wait import NotYet, wait_until
from tests.support.steps import STEPS
from tests.support.stores import Project, Stores

SECRET = "ten-thousand-monkeys"
ASSET = "push:lab/datasets:main"
NONE = "0" * 40
LIMIT = 1024 * 1024
WAITING = f"""
from airflow.sdk import DAG, Asset
with DAG("waiting", schedule=[Asset(name="{ASSET}", uri="x-push://lab/datasets/main")]):
    pass
"""

serial = itertools.count(1)

# --- Receiving pushes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Airflow:
    """An api-server and its database file."""

    url: str
    database: Path

    def post(self, body: bytes | dict[str, Any], **headers: str) -> requests.Response:
        given = {"Authorization": f"Bearer {SECRET}", **headers}
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(f"{self.url}{pushes.PATH}", data=sent, headers=given, timeout=30)

    def list_events(self) -> list[tuple[str, dict[str, str]]]:
        """List the names of the assets that have events, and what these say."""
        text = (
            "SELECT name, e.extra FROM asset_event e JOIN asset a ON a.id = asset_id ORDER BY e.id"
        )
        return [(name, json.loads(extra)) for name, extra in self.query(text)]

    def clear_requests(self) -> None:
        """Delete all requests to parse, as the DAG processor does once it has seen them."""
        with contextlib.closing(sqlite3.connect(self.database)) as database, database:
            database.execute("DELETE FROM dag_priority_parsing_request")

    def query(self, text: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            return database.execute(text).fetchall()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Start Airflow's api-server by itself, with a DAG that waits for pushes to the datasets."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "waiting.py").write_text(WAITING)
    env = airflow_environment(home)
    for command in (["db", "migrate"], ["dags", "reserialize"]):
        run([*airflow.airflow_command(), *command], timeout=120, env=env)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = [*airflow.airflow_command(), "api-server", "--apps", "core", "--port", str(port)]
    env |= {f"AIRFLOW__{name}": value for name, value in airflow.read_shared_settings(KIT).items()}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(server, env=env, stdout=log, stderr=log)
    found = Airflow(f"http://127.0.0.1:{port}", home / "airflow.db")
    try:
        wait_until(lambda: expect_health(found, process), what="the api-server", timeout=60)
        yield found
    finally:
        process.terminate()
        process.wait(4 * STOP_SECONDS)
    assert SECRET not in (home / "log").read_text()


def airflow_environment(home: Path) -> dict[str, str]:
    chosen = {
        "CORE__DAGS_FOLDER": str(home / "dags"),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PLUGINS_FOLDER": str(KIT / PLUGINS),
        "API__HOST": "127.0.0.1",
        "API__WORKERS": "1",
        **airflow.metadata(f"sqlite:///{home / 'airflow.db'}"),
    }
    return {
        **{f"AIRFLOW__{name}": value for name, value in chosen.items()},
        "AIRFLOW_HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(KIT / PLUGINS),
        pushes.VARIABLE: SECRET,
    }


def expect_health(found: Airflow, process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, (found.database.parent / "log").read_text()
    try:
        code = requests.get(f"{found.url}/api/v2/monitor/health", timeout=5).status_code
    except requests.RequestException as error:
        raise NotYet(str(error)) from error
    if code != 200:
        raise NotYet(f"it answers {code}")


def new_commit() -> str:
    return f"{next(serial):040x}"


def make_push(**other: object) -> dict[str, Any]:
    """Return what Gitea posts, as far as anybody reads it."""
    body: dict[str, Any] = {
        "ref": "refs/heads/main",
        "before": new_commit(),
        "after": new_commit(),
        "repository": {"full_name": "lab/datasets"},
        "pusher": {"login": "lab"},
        "commits": [],
    }
    return body | other


def test_a_push_makes_an_event_for_who_waits(told: Airflow) -> None:
    before, push = told.list_events(), make_push()
    answer = told.post(push)
    assert (answer.status_code, answer.json()) == (200, {"detail": f"an event of {ASSET}"})
    extra = {name: push[name] for name in ("ref", "before", "after")}
    extra |= {"repository": "lab/datasets", "pusher": "lab"}
    assert told.list_events() == [*before, (ASSET, extra)]
    assert told.query("SELECT target_dag_id FROM asset_dag_run_queue") == [("waiting",)]


def test_a_push_that_is_told_again_makes_no_second_event(told: Airflow) -> None:
    before, push = told.list_events(), make_push()
    with ThreadPoolExecutor(8) as pool:
        codes = {answer.status_code for answer in pool.map(told.post, [push] * 8)}
    assert codes == {told.post(push).status_code} == {200}
    assert len(told.list_events()) == len(before) + 1


def test_a_branch_that_comes_back_to_a_commit_makes_an_event(told: Airflow) -> None:
    before, push = told.list_events(), make_push()
    assert told.post(push).status_code == 200
    assert told.post(push | {"before": new_commit()}).status_code == 200
    assert len(told.list_events()) == len(before) + 2


@pytest.mark.parametrize(
    ("other", "bundles"),
    [
        ({"repository": {"full_name": "lab/pipelines"}}, ["pipelines", "team-a"]),
        ({"ref": "refs/heads/release"}, ["production"]),
        ({"ref": "refs/heads/other"}, []),
        ({"pusher": {"login": "steps"}}, []),
        ({"after": NONE}, []),
    ],
    ids=str,
)
def test_the_bundles_of_a_branch_are_looked_at_again(
    told: Airflow, other: dict[str, object], bundles: list[str]
) -> None:
    """By the table that the DAG processor reads each second; one request stands for many pushes."""
    told.clear_requests()
    with ThreadPoolExecutor(4) as pool:
        assert {a.status_code for a in pool.map(told.post, [make_push(**other)] * 4)} == {202}
    text = "SELECT bundle_name FROM dag_priority_parsing_request ORDER BY bundle_name"
    assert [name for (name,) in told.query(text)] == bundles


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"pusher": {"login": "steps"}}, "steps pushes what runs have made"),
        ({"ref": "refs/tags/v1"}, "refs/tags/v1 is no branch"),
        ({"after": NONE}, "refs/heads/main was deleted"),
        ({"ref": "refs/heads/release"}, "no DAG waits for push:lab/datasets:release"),
        ({"ref": "refs/heads/é/x"}, "no DAG waits for push:lab/datasets:é/x"),
        (
            {"repository": {"full_name": "lab/pipelines"}},
            "no DAG waits for push:lab/pipelines:main",
        ),
    ],
    ids=str,
)
def test_what_nobody_waits_for_makes_no_event(
    told: Airflow, other: dict[str, object], reason: str
) -> None:
    before = told.list_events()
    answer = told.post(make_push(**other))
    assert (answer.status_code, answer.json()) == (202, {"detail": reason})
    assert told.list_events() == before


@pytest.mark.parametrize(
    "given",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": "Bearer é"},
        {"Authorization": "", "X-Gitea-Signature": "0" * 64},
    ],
    ids=str,
)
def test_who_does_not_know_the_secret_is_refused(told: Airflow, given: dict[str, str]) -> None:
    before = told.list_events()
    sent = {name: value.encode("latin-1") for name, value in given.items()}
    answer = told.post(make_push(), **sent)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert told.list_events() == before


def test_a_login_of_airflows_own_is_not_the_secret(told: Airflow) -> None:
    files = list(told.database.parent.rglob("*passwords.json*"))
    passwords = json.loads(files[0].read_text())
    for password in passwords.values():
        answer = told.post(make_push(), Authorization=f"Bearer {password}")
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"ref"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"NaN",
        {},
        make_push(ref=None),
        make_push(ref="main"),
        make_push(ref="refs/heads/a b"),
        make_push(ref="refs/heads/a:b"),
        make_push(ref="refs/heads/\x00"),
        make_push(ref="refs/heads/\udcff"),
        make_push(ref="refs/heads/" + "x" * 600),
        make_push(after=1),
        make_push(after="main"),
        make_push(after="A" * 40),
        make_push(before="f" * 41),
        make_push(repository="lab/datasets"),
        make_push(repository={"full_name": "datasets"}),
        make_push(repository={"full_name": "lab/a:b"}),
        make_push(pusher=None),
        make_push(pusher={"login": ["lab"]}),
        make_push(pusher={"login": "\x1b[2J"}),
    ],
    ids=lambda body: repr(body)[:60],
)
def test_what_tells_of_no_push_is_refused(told: Airflow, body: bytes | dict[str, Any]) -> None:
    before = told.list_events()
    answer = told.post(body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("no push: ")
    assert told.list_events() == before


def test_what_is_too_long_is_refused(told: Airflow) -> None:
    before, body = told.list_events(), json.dumps(make_push()).encode()
    answer = told.post(body + b" " * (LIMIT + 1 - len(body)))
    assert (answer.status_code, answer.json()) == (413, {"detail": f"more than {LIMIT} bytes"})
    assert told.list_events() == before
    assert told.post(body + b" " * (LIMIT - len(body))).status_code == 200


def test_nothing_else_is_served(told: Airflow) -> None:
    given = {"Authorization": f"Bearer {SECRET}"}
    assert requests.get(told.url + pushes.PATH, headers=given, timeout=30).status_code == 405
    other = requests.post(f"{told.url}/lab/other", headers=given, timeout=30)
    assert other.status_code == 404


def test_without_a_secret_nobody_is_believed(tmp_path: Path) -> None:
    """As when Airflow was started by hand: an empty secret must not count as one."""
    script = """
import os
from starlette.testclient import TestClient
import lab_pushes
client = TestClient(lab_pushes.app)
for secret in (None, ""):
    if secret is not None:
        os.environ[lab_pushes.SECRET] = secret
    for header in ("", "Bearer", "Bearer ", "Bearer None"):
        print(client.post("/push", headers={"Authorization": header}).status_code)
"""
    env = {**airflow_environment(tmp_path), "PYTHONPATH": str(KIT / PLUGINS)}
    del env[pushes.VARIABLE]
    assert run([sys.executable, "-c", script], timeout=60, env=env).split() == ["503"] * 8


# --- Sending pushes -----------------------------------------------------------------------------


@dataclass
class Receiver:
    """A stand-in for Airflow: it keeps what it gets, and answers as it was told to."""

    server: ThreadingHTTPServer
    status: int = 200
    detail: str = "an event"
    heard: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    dripping: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.tokens.add(request.headers["Authorization"])
        if self.status:
            self.heard.append(json.loads(body))
            request.send_response(self.status)
            request.end_headers()
            request.wfile.write(json.dumps({"detail": self.detail}).encode())
        else:  # an answer that never ends, though bytes keep coming
            with contextlib.suppress(OSError):
                while not self.dripping.wait(0.1):
                    request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


@contextlib.contextmanager
def receiving(stores: Stores) -> Iterator[Receiver]:
    """Answer where Airflow would while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    port = stores.site.ports[pushes.RECEIVER]
    receiver = Receiver(ThreadingHTTPServer(("127.0.0.1", port), Handler))
    receiver.server.daemon_threads = True
    threading.Thread(target=receiver.server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.dripping.set()
        receiver.server.shutdown()
        receiver.server.server_close()


@dataclass(frozen=True)
class Person:
    """Somebody with a clone of the project's repository."""

    project: Project
    folder: Path

    @property
    def pending_folder(self) -> Path:
        return self.project.bare / announce.PENDING

    def list_pending(self) -> list[str]:
        """List the commits of which Airflow has not been told."""
        return [json.loads(p.read_bytes())["after"] for p in sorted(self.pending_folder.glob("*"))]

    def commit(self) -> str:
        self.project.git("commit", "--quiet", "--allow-empty", "--message", "x", cwd=self.folder)
        return self.project.git("rev-parse", "HEAD", cwd=self.folder).strip()

    def push(self, *refs: str) -> str:
        """Push, which succeeds whatever Airflow does; return what whoever pushes reads."""
        done = subprocess.run(
            ["git", "push", "--quiet", "origin", *(refs or ("HEAD:main",))],
            cwd=self.folder,
            env=environment(self.project.lab),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not self.project.stores.find_leaks(done.stdout + done.stderr)
        return done.stderr


@pytest.fixture
def person(project: Project, tmp_path: Path) -> Person:
    site = project.stores.site
    gitserver.ensure_hooks(site.config, site.secrets, site.ports)
    project.git("clone", "--quiet", project.lab.git_url, tmp_path / "clone", cwd=tmp_path)
    return Person(project, tmp_path / "clone")


def test_airflow_is_told_of_a_persons_push(person: Person) -> None:
    before, after = person.project.tip(), person.commit()
    with receiving(person.project.stores) as airflow:
        said = person.push()
    assert airflow.heard == [
        {
            "ref": "refs/heads/main",
            "before": before,
            "after": after,
            "repository": {"full_name": person.project.name},
            "pusher": {"login": layout.OWNER},
        }
    ]
    secret = pushes.push_secret(person.project.stores.site.secrets)
    assert airflow.tokens == {f"Bearer {secret}"}
    assert "remote: Airflow was told: an event" in said
    assert not person.list_pending()


def test_airflow_is_told_of_each_reference(person: Person) -> None:
    tip = person.commit()
    with receiving(person.project.stores) as airflow:
        person.push("HEAD:main", "HEAD:refs/heads/ä b".replace(" ", "-"), "HEAD:refs/tags/v1")
    assert {one["ref"] for one in airflow.heard} == {
        "refs/heads/main",
        "refs/heads/ä-b",
        "refs/tags/v1",
    }
    assert {one["after"] for one in airflow.heard} == {tip}


def test_airflow_hears_nothing_of_what_a_run_pushes(person: Person) -> None:
    before = person.project.tip()
    with receiving(person.project.stores) as airflow:
        person.project.run().run_steps(*STEPS)
    assert person.project.tip() != before
    assert not airflow.heard
    assert not person.list_pending()


def test_what_airflow_misses_it_hears_at_the_next_push(person: Person) -> None:
    commits = [person.commit()]
    assert "remote: Airflow was not told yet: " in person.push()
    commits += [person.commit()]
    person.push()
    assert person.list_pending() == commits
    commits += [person.commit()]
    with receiving(person.project.stores) as airflow:
        person.push()
    assert [one["after"] for one in airflow.heard] == commits
    assert not person.list_pending()


def test_what_airflow_misses_it_hears_at_the_next_start(person: Person) -> None:
    tip = person.commit()
    person.push()
    site = person.project.stores.site
    with receiving(person.project.stores) as airflow:
        for _ in range(2):
            gitserver.deliver_pending_pushes(site.config, site.secrets, site.ports)
    mine = [one for one in airflow.heard if one["after"] == tip]
    assert [one["pusher"]["login"] for one in mine] == [layout.OWNER]
    assert not person.list_pending()


def test_a_start_says_what_airflow_still_does_not_know(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    tip = person.commit()
    person.push()
    site = person.project.stores.site
    with receiving(person.project.stores) as airflow:
        airflow.status, airflow.detail = 401, "wrong secret, or none"
        gitserver.deliver_pending_pushes(site.config, site.secrets, site.ports)
    assert f"{person.project.name}: Airflow was not told" in capsys.readouterr().out
    assert person.list_pending() == [tip]


@pytest.mark.parametrize("status", [401, 403, 404, 413, 500, 503])
def test_an_answer_that_may_become_another_is_asked_for_again(person: Person, status: int) -> None:
    tip = person.commit()
    with receiving(person.project.stores) as airflow:
        airflow.status, airflow.detail = status, "not today"
        assert f"Airflow was not told yet: it answers {status}: not today" in person.push()
    assert person.list_pending() == [tip]


def test_what_airflow_can_not_read_is_told_once(person: Person) -> None:
    person.commit()
    with receiving(person.project.stores) as airflow:
        airflow.status, airflow.detail = 400, "no push"
        person.push()
    assert not person.list_pending()


def test_a_push_does_not_wait_for_an_answer_that_does_not_come(person: Person) -> None:
    tip = person.commit()
    with receiving(person.project.stores) as airflow:
        airflow.status = 0
        said = person.push()
    assert f"Airflow was not told yet: no answer in {announce.SECONDS} s" in said
    assert person.list_pending() == [tip] == [person.project.tip()]


def test_a_half_written_note_is_none(person: Person) -> None:
    """As a kill leaves one."""
    person.pending_folder.mkdir()
    (person.pending_folder / "part").write_text('{"ref": "refs/he')
    tip = person.commit()
    with receiving(person.project.stores) as airflow:
        person.push()
    assert [one["after"] for one in airflow.heard] == [tip]
    assert not person.list_pending()


def test_the_hook_and_the_notes_hold_no_secret(person: Person) -> None:
    person.commit()
    person.push()
    hook = person.project.bare / "hooks" / "post-receive"
    (note,) = person.pending_folder.iterdir()
    text = hook.read_text() + note.read_text()
    assert not person.project.stores.find_leaks(text)
    assert hook.stat().st_mode & 0o777 == 0o700
    assert person.pending_folder.stat().st_mode & 0o777 == 0o700
    secret = person.project.stores.config.secrets / "push-secret"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_hook_changes_whole_and_only_when_it_must(tmp_path: Path) -> None:
    bare = repositories.create_repository(tmp_path, "lab/some")
    hook = bare / "hooks" / "post-receive"
    repositories.ensure_hook(bare, "#!/bin/sh\nexit 0\n")
    first = hook.stat()
    (hook.parent / "post-receive.part").write_text("#!/bin/s")  # left by a kill
    repositories.ensure_hook(bare, "#!/bin/sh\nexit 0\n")
    assert hook.stat().st_mtime_ns == first.st_mtime_ns
    repositories.ensure_hook(bare, "#!/bin/sh\nexit 1\n")
    assert hook.read_text() == "#!/bin/sh\nexit 1\n"
    assert hook.stat().st_ino != first.st_ino
    assert hook.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in hook.parent.iterdir()] == ["post-receive"]


def test_another_address_of_airflow_makes_other_hooks(person: Person) -> None:
    site = person.project.stores.site
    hook = person.project.bare / "hooks" / "post-receive"
    before = hook.read_text()
    gitserver.ensure_hooks(site.config, site.secrets, {**site.ports, pushes.RECEIVER: 9})
    assert ":9/lab/push" in hook.read_text() != before
    gitserver.ensure_hooks(site.config, site.secrets, site.ports)
    assert hook.read_text() == before
