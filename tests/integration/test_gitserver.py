"""The git server as its users see it: a real uvicorn, a real git, one free loopback port."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from lab.backends.embedded.gitserver import app, repositories, smart_http
from lab.backends.embedded.gitserver.accounts import Account, write_accounts
from lab.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).resolve().parents[2]
TOKENS = {"writer": "wr1ter-t0ken-5a7c", "reader": "re4der-t0ken-91be", "other": "0ther-t0ken-33d2"}
HELPER = "!f() { echo username=$LAB_NAME; echo password=$LAB_TOKEN; }; f"
GIT = ["git", "-c", f"credential.helper={HELPER}"]
DEADLINE = 20.0  # seconds for anything that a test waits for

serial = itertools.count()


@dataclass
class Server:
    """A running server, and the client's side of it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    names: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "repositories"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def grant(self, *, without: str = "") -> None:
        """Let the writer write and read all repositories, the reader read them, other nothing."""
        every = {
            "writer": Account.with_token(TOKENS["writer"], read=self.names, write=self.names),
            "reader": Account.with_token(TOKENS["reader"], read=self.names),
            "other": Account.with_token(TOKENS["other"]),
        }
        write_accounts(
            self.folder / "accounts.json",
            {name: account for name, account in every.items() if name != without},
        )

    def create_repository(self) -> Repository:
        self.names.append(f"lab/data-{next(serial)}")
        self.grant()
        bare = repositories.create_repository(self.root, self.names[-1])
        return Repository(self, self.names[-1], bare)

    def get(self, path: str, account: str | None = None, **more: str) -> httpx.Response:
        auth = (account, TOKENS[account]) if account else None
        return httpx.get(self.url + path, auth=auth, headers=more)


@dataclass
class Repository:
    """A repository on the server, new for each test."""

    server: Server
    name: str
    bare: Path

    @property
    def url(self) -> str:
        return f"{self.server.url}/{self.name}.git"

    @property
    def refs(self) -> str:
        return f"/{self.name}.git/info/refs?service=git-"

    def clone(self, folder: Path) -> Path:
        git_output(["clone", "-q", self.url, os.fspath(folder)], folder.parent)
        return folder

    def tip(self) -> str:
        return git_output(["rev-parse", "main"], self.bare)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Run a server over the folder; once it has ended, its log must hold no secret."""
    (folder / "repositories").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            server_command(port),
            cwd=PROJECT,
            env=server_environment(folder),
            stdout=log,
            stderr=log,
        )
    server = Server(folder, port, process)
    if not (folder / "accounts.json").exists():
        server.grant()
    try:
        wait_until(lambda: is_serving(server))
        yield server
    finally:
        end_process(process)
    assert not find_leaks(server.log)


def server_command(port: int) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    factory = ["--factory", "lab.backends.embedded.gitserver.app:from_environment"]
    return [sys.executable, "-m", "uvicorn", *factory, *options]


def server_environment(folder: Path) -> dict[str, str]:
    paths = {
        "GITSERVER_ROOT": os.fspath(folder / "repositories"),
        "GITSERVER_ACCOUNTS": os.fspath(folder / "accounts.json"),
    }
    return {**os.environ, **paths}


def is_serving(server: Server) -> bool:
    assert server.process.poll() is None, server.log
    try:
        return server.get("/healthz").text == "ok"
    except httpx.TransportError:
        return False


def end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_leaks(text: str) -> list[str]:
    pairs = (f"{name}:{token}" for name, token in TOKENS.items())
    encoded = [base64.b64encode(pair.encode()).decode() for pair in pairs]
    return [secret for secret in [*TOKENS.values(), *encoded, "uthorization"] if secret in text]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def client_environment(account: str, **more: str) -> dict[str, str]:
    """Return the environment of a git with this account's token and without any configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "ada@lab.example" for who in ("AUTHOR", "COMMITTER")},
        "LAB_NAME": account,
        "LAB_TOKEN": TOKENS.get(account, "a-wrong-token"),
        **more,
    }


def run_git(
    arguments: list[str], where: Path, account: str = "writer", **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GIT, *arguments],
        cwd=where,
        env=client_environment(account, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def git_output(arguments: list[str], where: Path, account: str = "writer", **more: str) -> str:
    """Run git, which must succeed, and return what it printed."""
    done = run_git(arguments, where, account, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit_file(work: Path, name: str = "data.csv", content: bytes = b"id,name\n") -> str:
    """Commit a file and return the commit."""
    (work / name).write_bytes(content)
    git_output(["add", name], work)
    git_output(["commit", "-qm", f"Add {name} <b>über</b>"], work)
    return git_output(["rev-parse", "HEAD"], work)


def push(work: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_git(["push", "-q", "origin", "HEAD:main", *more], work)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start one server for all tests; its path has a space and non-ASCII letters."""
    with serving(tmp_path_factory.mktemp("Größe und 実験")) as running:
        yield running


@pytest.fixture
def repository(server: Server) -> Repository:
    return server.create_repository()


@pytest.fixture
def work(repository: Repository, tmp_path: Path) -> Path:
    """Return a clone with one commit, which is pushed."""
    folder = repository.clone(tmp_path / "work")
    commit_file(folder)
    assert push(folder).returncode == 0
    return folder


# --- The protocol


@pytest.mark.parametrize("version", ["0", "2"])
def test_push_clone_and_fetch(repository: Repository, work: Path, version: str) -> None:
    protocol = ["-c", f"protocol.version={version}"]
    copy = work.with_name("copy")
    git_output([*protocol, "clone", "-q", repository.url, os.fspath(copy)], work.parent, "reader")
    tip = commit_file(work, "more.csv")
    git_output([*protocol, "push", "-q", "origin", "HEAD:main"], work)
    trace = run_git([*protocol, "fetch", "origin"], copy, "reader", GIT_TRACE_PACKET="1").stderr
    assert ("version 2" in trace) == (version == "2")
    assert git_output(["rev-parse", "origin/main"], copy) == repository.tip() == tip


def test_a_compressed_request(repository: Repository, work: Path) -> None:
    stream = "".join(
        f"commit refs/heads/b{n}\ncommitter A <a@b> {n} +0000\ndata 1\n{n % 10}\n"
        for n in range(60)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=work, input=stream, text=True, check=True)
    git_output(["push", "-q", "--all"], work)
    where = os.fspath(work.with_name("copy"))
    trace = run_git(
        ["clone", repository.url, where], work.parent, "reader", GIT_TRACE_CURL="1"
    ).stderr
    assert re.search(r"Content-Encoding: gzip", trace, re.IGNORECASE)
    assert len(git_output(["branch", "-r"], Path(where)).splitlines()) == 62


def test_a_partial_clone(repository: Repository, work: Path) -> None:
    copy = work.with_name("copy")
    git_output(
        ["clone", "-q", "--bare", "--filter=blob:none", repository.url, os.fspath(copy)], work
    )
    missing = git_output(["rev-list", "--objects", "--missing=print", "main"], copy)
    assert "?" in missing


def test_a_large_push_is_not_held_in_memory(repository: Repository, work: Path) -> None:
    status = Path(f"/proc/{repository.server.process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc to read a peak of memory from")
    status.with_name("clear_refs").write_text("5")  # reset the peak
    before = read_kilobytes(status, "VmRSS")
    tip = commit_file(work, "large.bin", os.urandom(30_000_000))
    git_output(["push", "-q", "origin", "HEAD:main"], work)
    git_output(["clone", "-q", repository.url, os.fspath(work.with_name("copy"))], work.parent)
    assert repository.tip() == tip
    assert read_kilobytes(status, "VmHWM") - before < 30_000


def read_kilobytes(status: Path, name: str) -> int:
    return int(re.findall(rf"{name}:\s+(\d+) kB", status.read_text())[0])


# --- Rights


@pytest.mark.parametrize(
    ("account", "service", "status"),
    [
        (None, "upload-pack", 401),
        (None, "receive-pack", 401),
        ("reader", "upload-pack", 200),
        ("reader", "receive-pack", 403),
        ("writer", "receive-pack", 200),
        ("other", "upload-pack", 403),
    ],
)
def test_rights(repository: Repository, account: str | None, service: str, status: int) -> None:
    answer = repository.server.get(repository.refs + service, account)
    assert answer.status_code == status
    challenge = 'Basic realm="lab"' if status == 401 else None
    assert answer.headers.get("www-authenticate") == challenge


@pytest.mark.parametrize(
    "value",
    [
        "Basic " + base64.b64encode(b"writer:wrong").decode(),
        "Basic " + base64.b64encode(b"nobody:" + TOKENS["writer"].encode()).decode(),
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        "Basic !",
        "Basic",
        "Bearer " + TOKENS["writer"],
    ],
)
def test_wrong_credentials(repository: Repository, value: str) -> None:
    answer = repository.server.get(repository.refs + "upload-pack", Authorization=value)
    assert answer.status_code == 401


def test_a_clone_with_a_wrong_token(repository: Repository, tmp_path: Path) -> None:
    refused = run_git(["clone", repository.url, "copy"], tmp_path, "stranger")
    assert "Authentication failed" in refused.stderr


def test_a_reader_can_not_push(repository: Repository, work: Path) -> None:
    before = repository.tip()
    commit_file(work, "more.csv")
    refused = run_git(["push", "origin", "HEAD:main"], work, "reader")
    assert "403" in refused.stderr
    assert repository.tip() == before


def test_a_push_without_its_first_part_needs_the_right_too(repository: Repository) -> None:
    url = f"{repository.url}/git-receive-pack"
    posts = {
        who: httpx.post(url, auth=(who, TOKENS[who]), content=b"0000")
        for who in ("reader", "other")
    }
    assert {answer.status_code for answer in posts.values()} == {403}


def test_a_revoked_token_is_refused_at_once(repository: Repository, work: Path) -> None:
    repository.server.grant(without="writer")
    commit_file(work, "more.csv")
    assert "Authentication failed" in push(work).stderr
    repository.server.grant()
    assert push(work).returncode == 0


@pytest.mark.parametrize("content", [None, "", "[]", '{"writer": {}}', '{"writer": {"sha256": 1}}'])
def test_a_missing_or_broken_accounts_file(repository: Repository, content: str | None) -> None:
    server = repository.server
    accounts = server.folder / "accounts.json"
    accounts.unlink() if content is None else accounts.write_text(content)
    assert server.get(repository.refs + "upload-pack", "reader").status_code == 401
    server.grant()
    assert server.get(repository.refs + "upload-pack", "reader").status_code == 200


def test_accounts_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    write_accounts(path, {"a": Account.with_token("secret", read=["lab/x"])})
    before = path.read_text()
    with pytest.raises(ValueError, match="account name"):
        write_accounts(path, {"a:b": Account.with_token("secret")})
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in before
    assert path.read_text() == before
    assert list_names(tmp_path) == ["accounts.json"]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- Paths


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/lab/none.git/info/refs?service=git-upload-pack",
        "/lab/../lab/NAME.git/info/refs?service=git-upload-pack",
        "/lab/%2e%2e/lab/NAME.git/info/refs?service=git-upload-pack",
        "/lab/..%2fNAME.git/info/refs?service=git-upload-pack",
        "//lab/NAME.git/info/refs?service=git-upload-pack",
        "/../repositories/lab/NAME.git/info/refs?service=git-upload-pack",
        "/lab/NAME.git/info/refs",
        "/lab/NAME.git/info/refs?service=git-upload-archive",
        "/lab/NAME.git/info/refs%0a?service=git-upload-pack",
        "/lab/NAME.git/git-upload-pack",
        "/lab/NAME.git/HEAD",
        "/lab/NAME.git/config",
        "/lab/NAME.git/objects/info/packs",
        "/web/~lab/NAME/../../../../accounts.json",
    ],
)
def test_nothing_else_is_served(repository: Repository, work: Path, path: str) -> None:
    assert work
    path = path.replace("lab/NAME", repository.name).replace("NAME", repository.name[4:])
    assert send_raw(repository.server, f"GET {path} HTTP/1.1", b"").split()[1] == b"404"


def send_raw(server: Server, request: str, body: bytes) -> bytes:
    """Send a request that no client library has tidied up; return the start of the answer."""
    with open_request(server, request, body) as connection:
        return connection.recv(4096)


def open_request(server: Server, request: str, body: bytes, *headers: str) -> socket.socket:
    """Send a request and return its open connection."""
    credentials = base64.b64encode(f"writer:{TOKENS['writer']}".encode()).decode()
    lines = [request, "Host: lab", f"Authorization: Basic {credentials}", *headers]
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def test_health_needs_no_credentials(server: Server) -> None:
    answer = server.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok")


def test_it_refuses_to_start_without_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServiceError, match=r"accounts\.json"):
        app.build_application(tmp_path, tmp_path / "accounts.json")
    monkeypatch.delenv("GITSERVER_ROOT", raising=False)
    with pytest.raises(ServiceError, match="GITSERVER_ROOT"):
        app.from_environment()


# --- What a push may change


def test_history_is_not_rewritten(repository: Repository, work: Path) -> None:
    before = repository.tip()
    git_output(["commit", "-q", "--amend", "-m", "Another past"], work)
    assert "rejected" in push(work).stderr
    forced = push(work, "--force").stderr
    assert "non-fast-forward" in forced
    assert repository.tip() == before


def test_a_branch_is_not_deleted(repository: Repository, work: Path) -> None:
    git_output(["push", "-q", "origin", "HEAD:side"], work)
    refused = run_git(["push", "origin", ":side"], work).stderr
    assert "deletion prohibited" in refused
    assert git_output(["rev-parse", "side"], repository.bare) == repository.tip()


def test_of_eight_pushes_at_once_one_wins(repository: Repository, work: Path) -> None:
    clones = [repository.clone(work.with_name(f"clone-{n}")) for n in range(8)]
    tips = [commit_file(clone, f"{n}.csv") for n, clone in enumerate(clones)]
    with ThreadPoolExecutor(8) as pool:
        pushes = list(pool.map(push, clones))
    won = [tip for tip, done in zip(tips, pushes, strict=True) if done.returncode == 0]
    assert won == [repository.tip()]
    # "failed to update ref" is how git words it when the others' push came in between.
    for lost in (done.stderr for done in pushes if done.returncode != 0):
        assert re.search(r"rejected.*(fetch first|non-fast-forward|failed to update ref)", lost)


# --- Locks and unfinished pushes


@pytest.mark.parametrize(
    "lock", ["refs/heads/main.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/side/b.lock"]
)
def test_a_stale_lock_does_not_block(repository: Repository, work: Path, lock: str) -> None:
    stale = repository.bare / lock
    stale.parent.mkdir(exist_ok=True)
    stale.touch()
    quarantine = repository.bare / "objects" / "tmp_objdir-incoming-x"
    quarantine.mkdir()
    tip = commit_file(work, "more.csv")
    assert push(work).returncode == 0
    assert repository.tip() == tip
    assert not stale.exists()
    assert not quarantine.exists()


def test_a_lock_is_not_stale_while_its_owner_lives(repository: Repository, work: Path) -> None:
    lock = repository.bare / "refs/heads/main.lock"
    lock.touch()
    tip = commit_file(work, "more.csv")
    orphan = os.open(repository.bare, os.O_RDONLY)  # as a killed server's git holds it
    fcntl.flock(orphan, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push, work)
        time.sleep(0.5)
        assert lock.exists()
        os.close(orphan)
        assert pushing.result().returncode == 0
    assert repository.tip() == tip


@contextmanager
def half_sent_push(repository: Repository, work: Path) -> Iterator[socket.socket]:
    """Send half of a push's pack and wait until git has begun to store it."""
    tip = commit_file(work, "half.bin", os.urandom(300_000))
    line = f"{repository.tip()} {tip} refs/heads/main\0report-status"
    pack = subprocess.run(
        ["git", "pack-objects", "--stdout", "--revs", "-q"],
        input=b"HEAD\n",
        cwd=work,
        capture_output=True,
        check=True,
    ).stdout
    body = f"{len(line) + 4:04x}{line}0000".encode() + pack
    with open_request(
        repository.server,
        f"POST /{repository.name}.git/git-receive-pack HTTP/1.1",
        body[: len(body) // 2],
        "Content-Type: application/x-git-receive-pack-request",
        f"Content-Length: {len(body)}",
    ) as connection:
        wait_until(lambda: list_quarantines(repository))
        yield connection


def list_quarantines(repository: Repository) -> list[Path]:
    objects = repository.bare / "objects"
    return [*objects.glob("tmp_objdir-*"), *objects.glob("incoming-*")]


def test_a_push_whose_client_goes_away_is_ended(repository: Repository, work: Path) -> None:
    with half_sent_push(repository, work):
        pass
    began = time.monotonic()
    assert push(work).returncode == 0
    assert time.monotonic() - began < 5
    assert not list_quarantines(repository)


def test_a_clone_whose_client_goes_away_is_ended(repository: Repository, work: Path) -> None:
    tip = commit_file(work, "large.bin", os.urandom(8_000_000))
    assert push(work).returncode == 0
    request = f"POST /{repository.name}.git/git-upload-pack HTTP/1.1"
    body = f"0032want {tip}\n00000009done\n".encode()
    more = "Content-Type: application/x-git-upload-pack-request", f"Content-Length: {len(body)}"
    with open_request(repository.server, request, body, *more) as connection:
        connection.recv(1000)
        assert count_children(repository.server)  # more than the buffers between us can hold
    wait_until(lambda: not count_children(repository.server))


def count_children(server: Server) -> int:
    parents = subprocess.run(["ps", "-ax", "-o", "ppid="], capture_output=True, check=True).stdout
    return parents.split().count(str(server.process.pid).encode())


def test_a_server_removes_stale_locks_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "repositories").mkdir()
    lock = (
        repositories.create_repository(tmp_path / "repositories", "lab/data")
        / "refs/heads/main.lock"
    )
    lock.touch()
    with serving(tmp_path):
        assert not lock.exists()


def test_a_server_killed_in_a_push_does_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        repository = first.create_repository()
        work = repository.clone(tmp_path / "work")
        commit_file(work)
        assert push(work).returncode == 0
        with half_sent_push(repository, work):
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
    (repository.bare / "refs/heads/main.lock").touch()
    with serving(tmp_path) as second:
        git_output(["remote", "set-url", "origin", f"{second.url}/{repository.name}.git"], work)
        done = push(work)
    assert done.returncode == 0, done.stderr
    assert repository.tip() == git_output(["rev-parse", "HEAD"], work)
    assert git_output(["fsck", "--strict", "--full"], repository.bare) == ""
    assert not list_quarantines(repository)


def test_a_request_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text(
        f"#!/bin/sh\nsleep 60 &\necho $$ $! >'{tmp_path}/pids'\nsleep 60\n"
    )
    (tmp_path / "git").chmod(0o755)
    repositories.create_repository(tmp_path, "lab/slow")
    accounts = {"writer": Account.with_token(TOKENS["writer"], write=["lab/slow"])}
    write_accounts(tmp_path / "accounts.json", accounts)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(smart_http, "REQUEST_TIMEOUT", 3)
    began = time.monotonic()
    answer = post_in_process(tmp_path, "/lab/slow.git/git-receive-pack", b"0" * 1_000_000)
    assert answer.status_code == 504
    assert time.monotonic() - began < 10
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def post_in_process(root: Path, path: str, body: bytes) -> httpx.Response:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app.build_application(root, root / "accounts.json"))
        credentials = ("writer", TOKENS["writer"])
        async with httpx.AsyncClient(transport=transport, auth=credentials) as asking:
            return await asking.post(f"http://lab{path}", content=body)

    return asyncio.run(post())


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return state.stdout.strip()[:1] not in (b"", b"Z")


# --- The repositories


def test_creating_twice_changes_nothing(tmp_path: Path) -> None:
    first = repositories.create_repository(tmp_path, "lab/data")
    made = first.stat().st_ino
    assert repositories.create_repository(tmp_path, "lab/data") == first
    assert first.stat().st_ino == made
    assert repositories.list_names(tmp_path) == ["lab/data"]
    assert git_output(["config", "receive.denyNonFastForwards"], first) == "true"
    assert git_output(["symbolic-ref", "HEAD"], first) == "refs/heads/main"
    assert not (first / "hooks").exists()


def test_an_unfinished_creation_is_done_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "lab" / ".data.git.new-abc"
    unfinished.mkdir(parents=True)
    (unfinished / "HEAD").touch()
    assert repositories.list_names(tmp_path) == []
    repositories.create_repository(tmp_path, "lab/data")
    assert list_names(tmp_path / "lab") == ["data.git"]


def test_eight_creations_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(
            pool.map(lambda _: repositories.create_repository(tmp_path, "lab/data"), range(8))
        )
    assert len(made) == 1
    assert list_names(tmp_path / "lab") == ["data.git"]


@pytest.mark.parametrize("name", ["", "data", "../data", "lab/..", "lab/.x", "a/b/c", "lab/x\n"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="OWNER/NAME"):
        repositories.create_repository(tmp_path, name)


# --- The web view


def test_the_web_view_shows_commits_to_readers(repository: Repository, work: Path) -> None:
    tip = commit_file(work, "größe 1.csv", b"id,name\n1,<script>\n")
    assert push(work).returncode == 0
    view = f"/web/~{repository.name}/"
    get = repository.server.get
    assert repository.name[4:] in get("/web/", "reader").text
    message = "Add größe 1.csv &lt;b&gt;über&lt;/b&gt;"
    assert message in get(view, "reader").text
    assert message in get(f"{view}main", "reader").text
    shown = get(f"{view}commit/{tip}/", "reader").text
    assert message in shown
    assert "1,&lt;script&gt;" in shown
    assert "&lt;script&gt;" in get(f"{view}blob/{tip}/größe%201.csv", "reader").text
    assert get("/web/static/klaus.css", "reader").status_code == 200


def test_the_web_view_hides_what_an_account_may_not_read(repository: Repository) -> None:
    get = repository.server.get
    assert get("/web/").status_code == 401
    assert get(f"/web/~{repository.name}/").status_code == 401
    assert repository.name[4:] not in get("/web/", "other").text
    assert get(f"/web/~{repository.name}/", "other").status_code == 404


def test_the_web_view_is_read_only(repository: Repository, work: Path) -> None:
    tip = repository.tip()
    assert work
    view = f"/web/~{repository.name}/"
    get = repository.server.get
    hidden = ["raw/main/data.csv", "tarball/main/", "info/refs?service=git-upload-pack", "x"]
    assert {get(view + path, "writer").status_code for path in hidden} == {404}
    post = httpx.post(
        f"{repository.server.url}{view}commit/{tip}/", auth=("writer", TOKENS["writer"])
    )
    assert post.status_code == 405


# --- The log: the last test, because it checks what all others made the server log


def test_the_log_holds_no_credentials(server: Server, repository: Repository) -> None:
    shutil.rmtree(repository.bare / "objects")  # an error inside of git, too
    server.get(repository.refs + "upload-pack", "reader")
    server.get("/web/?%ff", "reader")
    assert "nobody is let in" in server.log
    assert not find_leaks(server.log)
    assert "Traceback" not in server.log
