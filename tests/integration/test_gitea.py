"""Gitea as the lab sets it up: the real server in a container, the real API, a real git."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import requests

from lab.backends.kind import gitea, stores
from lab.client.git import run_git
from lab.cluster import docker, forward, images
from lab.config import Config
from lab.delivery import ssh
from lab.errors import AccessError, LabError, ServiceError
from lab.layout import (
    DATASETS,
    OWNER,
    PIPELINES,
    READ,
    READER,
    REPOSITORIES,
    STEPS,
    TEAM_A,
    WRITE,
)
from lab.model import Access
from lab.wait import NotYet, wait_until
from tests.support.gitea import PORT, SSH_PORT, settings
from tests.support.needs import need_image

pytestmark = pytest.mark.kind

HOST_KEY = "/etc/gitea-ssh/host-key"
KEEPER = "keeper"
FILES = "/var/lib/gitea"
ACCOUNTS = (OWNER, STEPS, READER)
REFUSED = r"not found|error: 403|Authentication failed|refused the account"

# In Airflow's place: it accepts whatever is posted, and prints it for the test to read.
LISTENER = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Listener(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        heard = {"path": self.path, "headers": dict(self.headers), "body": json.loads(body)}
        print(json.dumps(heard), flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = HTTPServer(("127.0.0.1", PORT), Listener)
print("ready", flush=True)
server.serve_forever()
"""

serial = itertools.count()


class Killed(BaseException):
    """A stand-in for SIGKILL: nothing may catch it."""


@dataclass
class Server:
    """A running Gitea, and the lab that it belongs to."""

    url: str
    container: str
    folder: Path
    passwords: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    listener: gitea.Listener = field(
        default_factory=lambda: gitea.Listener(stores.RECEIVER, secrets.token_urlsafe(32))
    )
    ssh_port: int = 0

    @property
    def deploy_key(self) -> str:
        """The public half of Airflow's key."""
        return ssh.public_key(ssh.ensure_private_key(self.folder / "airflow.key"))

    def run_admin(self, arguments: list[str]) -> str:
        """Run a command of Gitea's command line and return what it printed."""
        self.commands.append(arguments)
        command = ["gitea", "--config", "/etc/gitea/app.ini", *arguments]
        return docker.docker("exec", self.container, *command)

    def password(self, account: str) -> str:
        return self.passwords.setdefault(account, secrets.token_urlsafe(24))

    def prepare(self, admin: Callable[[list[str]], str] | None = None) -> dict[str, str]:
        given = (
            admin or self.run_admin,
            self.password,
            self.tokens,
            self.listener,
            self.deploy_key,
        )
        found = gitea.prepare(self.url, *given)
        self.tokens = found
        return found

    def prepare_when_idle(self) -> None:
        """Prepare the server; raise NotYet while Gitea still changes the default branch."""
        try:
            self.prepare()
        except ServiceError as error:
            if "already in queue" in error.what:
                raise NotYet(error.what) from error
            raise

    def api(self, account: str = OWNER) -> gitea.Api:
        return gitea.api_with_password(self.url, account, self.password(account))

    def api_with_token(self, account: str) -> gitea.Api:
        return gitea.Api(self.url, account, gitea.Bearer(self.tokens[account]))

    def wipe(self) -> None:
        """Delete what `prepare` creates, as before its first call.

        Gitea keeps its last administrator, so another one is added.
        """
        users = self.run_admin(["admin", "user", "list"])
        if KEEPER not in users:
            flags = ["--admin", "--random-password", "--email", "keeper@localhost.localdomain"]
            self.run_admin(["admin", "user", "create", "--username", KEEPER, *flags])
        for account in ACCOUNTS:
            if f" {account} " in users:
                self.run_admin(["admin", "user", "delete", "--purge", "--username", account])
        self.tokens.clear()

    def empty_repositories(self) -> None:
        """Delete all repositories and create them anew."""
        for repository in REPOSITORIES:
            if self.api().find(f"repos/{repository}"):
                self.api().change("DELETE", f"repos/{repository}")
        self.prepare()

    def expect_branch(self, branch: str = "main") -> None:
        """Raise NotYet until the API knows of a first push, some time after git does."""
        found = self.api().get(f"repos/{DATASETS}/branches?limit=50")
        if branch not in {one["name"] for one in found or []}:
            raise NotYet("the API knows of no such branch")

    def read_state(self) -> dict[str, object]:
        """Return all that `prepare` answers for, with the times of the last changes."""
        owner = self.api()
        return {
            "users": sorted(user["login"] for user in owner.get("admin/users")),
            "repositories": [owner.get(f"repos/{name}") for name in REPOSITORIES],
            "rule": owner.get(f"repos/{DATASETS}/branch_protections/main"),
            "tokens": {account: self.list_tokens(account) for account in ACCOUNTS},
            "webhooks": {name: self.list_webhooks(name) for name in REPOSITORIES},
            "deploy keys": {name: self.list_keys(name) for name in REPOSITORIES},
            "rights": self.read_rights(),
        }

    def list_tokens(self, account: str) -> list[tuple[int, str, list[str]]]:
        found = self.api(account).get(f"users/{account}/tokens")
        return [(token["id"], token["name"], token["scopes"]) for token in found]

    def list_webhooks(self, repository: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api().get(f"repos/{repository}/hooks")
        return found

    def list_keys(self, repository: str) -> list[tuple[str, str, bool]]:
        found = self.api().get(f"repos/{repository}/keys")
        return [(one["title"], one["key"], one["read_only"]) for one in found]

    def read_rights(self) -> dict[tuple[str, str], str]:
        """Return what each account besides the owner may do with each repository."""
        return {
            (account, name): self.api().get(f"repos/{name}/collaborators/{account}/permission")[
                "permission"
            ]
            for account in gitea.ROBOTS
            for name in REPOSITORIES
        }

    def clone(self, account: str, repository: str) -> Clone:
        clone = Clone(self, account, repository, self.folder / f"clone-{next(serial)}")
        clone.git("clone", "--quiet", f"{self.url}/{repository}.git", clone.folder, cwd=self.folder)
        return clone

    def list_secrets(self) -> list[str]:
        return [*self.passwords.values(), *self.tokens.values(), self.listener.secret]


@dataclass(frozen=True)
class Clone:
    """One account's clone of a repository."""

    server: Server
    account: str
    repository: str
    folder: Path

    def git(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run git and return what it printed; the owner uses a password, the others a token."""
        tokens = self.server.tokens
        # Git needs two of them.
        given: dict[str, Any] = dict.fromkeys((one.name for one in fields(Access)), "")
        given["git_user"] = self.account
        given["git_password"] = tokens.get(self.account) or self.server.password(self.account)
        return run_git(Access(**given), *arguments, cwd=cwd or self.folder)

    def commit(self, *flags: str) -> None:
        self.git("commit", "--quiet", "--allow-empty", "--message", f"{next(serial)}", *flags)

    def push(self, *flags: str) -> str:
        self.git("push", "--quiet", *flags, "origin", "HEAD:main")
        return self.tip()

    def tip(self) -> str:
        """Return the branch's commit on the server."""
        return self.git("ls-remote", "origin", "refs/heads/main").partition("\t")[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a fresh Gitea, with nothing prepared."""
    image = need_image("gitea")
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True  # the block below ends the container
    container = DockerContainer(image, env=settings())
    # Whoever listens in Gitea's own network takes Airflow's place.
    container.with_kwargs(extra_hosts={str(urlsplit(stores.RECEIVER).hostname): "127.0.0.1"})
    folder = tmp_path_factory.mktemp("gitea")
    ssh.ensure_private_key(folder / "host.key")
    (folder / "host.key").chmod(0o644)  # Gitea runs as another user
    container.with_volume_mapping(folder / "host.key", HOST_KEY)
    for port in (PORT, SSH_PORT):
        cast("dict[str, Any]", container.ports)[f"{port}/tcp"] = ("127.0.0.1", None)
    with container:
        url = f"http://127.0.0.1:{container.get_exposed_port(PORT)}"
        wait_until(lambda: forward.check_answer(f"{url}/api/healthz"), what="Gitea", timeout=60)
        door = container.get_exposed_port(SSH_PORT)
        yield Server(url, container.get_container_id(), folder, ssh_port=int(door))


@pytest.fixture
def server(running: Server) -> Server:
    """Return Gitea, prepared as the lab's git server."""
    running.prepare()
    return running


@pytest.fixture
def new(running: Server) -> Server:
    """Return the same server, with repositories that hold nothing."""
    if not running.tokens:
        running.prepare()
    running.empty_repositories()
    return running


def watch_changes(monkeypatch: pytest.MonkeyPatch, after: Callable[[str], None]) -> None:
    """Call `after` with each request that changed something, once it has."""
    send = requests.Session.send

    def send_and_report(
        session: requests.Session, request: Any, **options: Any
    ) -> requests.Response:
        response = send(session, request, **options)
        if request.method != "GET":
            after(f"{request.method} {request.path_url}")
        return response

    monkeypatch.setattr(requests.Session, "send", send_and_report)


# --- Preparing ----------------------------------------------------------------------------------


def test_a_second_call_changes_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, before = server.tokens, server.read_state()
    made: list[str] = []
    watch_changes(monkeypatch, made.append)
    server.commands.clear()
    assert server.prepare() == tokens
    assert not made and not server.commands
    assert server.read_state() == before


def test_what_a_prepared_server_has(new: Server) -> None:
    prove_prepared(new)


def prove_prepared(server: Server) -> None:
    users = server.read_state()["users"]
    assert set(cast("list[str]", users)) - {KEEPER} == set(ACCOUNTS)
    for name in REPOSITORIES:
        found = server.api().get(f"repos/{name}")
        assert gitea.has_fields(found, gitea.REPOSITORY) and found["private"] and found["empty"]
    scopes = {name: [t[2] for t in server.list_tokens(name)] for name in ACCOUNTS}
    assert scopes == {OWNER: [], STEPS: [["write:repository"]], READER: [["read:repository"]]}
    assert server.read_rights() == {
        (STEPS, DATASETS): "write",
        (STEPS, PIPELINES): "none",
        (STEPS, TEAM_A): "none",
        (READER, DATASETS): "read",
        (READER, PIPELINES): "read",
        (READER, TEAM_A): "none",  # it comes by its key
    }
    keys = {name: server.list_keys(name) for name in REPOSITORIES}
    assert keys == {PIPELINES: [], DATASETS: [], TEAM_A: [(READER, server.deploy_key, True)]}
    for name in REPOSITORIES:
        (hook,) = server.list_webhooks(name)
        assert gitea.has_fields(hook, server.listener.webhook())


def test_calls_that_are_killed_complete_each_other(
    running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call gets one change further than the one before; the last one is not killed."""
    running.wipe()
    left = 0

    def count_change(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    def run_admin(arguments: list[str]) -> str:
        printed = running.run_admin(arguments)
        if arguments[2] != "list":
            count_change(arguments)
        return printed

    watch_changes(monkeypatch, count_change)
    killed = 0
    for steps in itertools.count(1):
        left = steps
        try:
            tokens = running.prepare(run_admin)
            break
        except Killed:
            killed += 1
    left = -1
    assert killed >= 5
    assert running.prepare() == tokens
    prove_prepared(running)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_a_wrong_password_is_made_right(server: Server, account: str) -> None:
    server.api().change(
        "PATCH",
        f"admin/users/{account}",
        {"source_id": 0, "login_name": account, "password": "an0ther-pa55word"},
    )
    assert not server.api(account).is_admitted("user")
    tokens = server.tokens
    assert server.prepare() == tokens
    assert server.api(account).is_admitted("user")


def test_no_token_of_the_setup_stays(server: Server) -> None:
    gitea.create_setup_token(server.run_admin)
    server.prepare()
    assert server.api().get("users/lab/tokens") == []


def test_rights_are_made_right(server: Server) -> None:
    before = server.read_rights()
    owner = server.api()
    owner.change("DELETE", f"repos/{PIPELINES}/collaborators/{READER}")
    owner.change("PUT", f"repos/{PIPELINES}/collaborators/{STEPS}", {"permission": "admin"})
    owner.change("PUT", f"repos/{DATASETS}/collaborators/{STEPS}", {"permission": "read"})
    server.prepare()
    assert server.read_rights() == before


def test_a_repository_is_made_private_again(server: Server) -> None:
    server.api().change("PATCH", f"repos/{DATASETS}", {"private": False, "has_wiki": True})
    server.prepare()
    found = server.api().get(f"repos/{DATASETS}")
    assert found["private"] and not found["has_wiki"]


@pytest.mark.parametrize("how", ["absent", "other"])
def test_the_rule_is_made_right(server: Server, how: str) -> None:
    path = f"repos/{DATASETS}/branch_protections"
    if how == "absent":
        server.api().change("DELETE", f"{path}/main")
    else:
        server.api().change("PATCH", f"{path}/main", {"enable_force_push": True})
    server.prepare()
    assert gitea.has_fields(server.api().get(f"{path}/main"), gitea.RULE)


@pytest.mark.parametrize("account", gitea.ROBOTS)
def test_a_revoked_token_is_replaced(server: Server, account: str) -> None:
    before = dict(server.tokens)
    (token,) = server.api(account).get(f"users/{account}/tokens")
    server.api(account).change("DELETE", f"users/{account}/tokens/{token['id']}")
    after = server.prepare()
    assert {name for name in after if after[name] != before[name]} == {account}
    assert server.api_with_token(account).is_admitted(f"repos/{READ[account][0]}")


def test_a_lost_token_is_replaced_and_no_longer_good(server: Server) -> None:
    lost = server.api_with_token(STEPS)
    del server.tokens[STEPS]
    server.prepare()
    assert server.api_with_token(STEPS).is_admitted(f"repos/{DATASETS}")
    assert not lost.is_admitted(f"repos/{DATASETS}")


def test_a_token_of_another_account_is_not_taken(server: Server) -> None:
    mine = server.tokens[STEPS]
    server.tokens[STEPS] = server.tokens[READER]
    assert server.prepare()[STEPS] not in {mine, server.tokens[READER]}


# --- Webhooks -----------------------------------------------------------------------------------


@contextmanager
def listening(server: Server) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Listen at Airflow's address, as Gitea sees it; yield what lists the posts so far."""
    from testcontainers.core.container import DockerContainer

    script = LISTENER.replace("PORT", str(urlsplit(stores.RECEIVER).port))
    container = DockerContainer(
        images.read_lock(Config.from_environment({}))["airflow"].name
    ).with_kwargs(network_mode=f"container:{server.container}", entrypoint=["python", "-c", script])

    def read_lines() -> list[str]:
        stdout, stderr = container.get_logs()
        assert not stderr, stderr
        return stdout.decode().splitlines()

    def expect_ready() -> None:
        if not read_lines():
            raise NotYet("nobody listens")

    with container:
        wait_until(expect_ready, what="the listener", timeout=60)
        yield lambda: [json.loads(line) for line in read_lines()[1:]]


def test_the_listener_hears_of_each_push_to_each_repository(new: Server) -> None:
    with listening(new) as heard:
        for number, (account, name) in enumerate([(OWNER, PIPELINES), (STEPS, DATASETS)], 1):
            clone = new.clone(account, name)
            clone.commit()
            tip = clone.push()
            wait_until(lambda: expect_deliveries(heard, number), what="the delivery", timeout=30)  # noqa: B023
            told = heard()[-1]
            assert told["path"] == urlsplit(stores.RECEIVER).path
            assert told["headers"]["Authorization"] == f"Bearer {new.listener.secret}"
            assert told["body"]["pusher"]["login"] == account
            assert told["body"]["repository"]["full_name"] == name
            moved = [told["body"][key] for key in ("ref", "before", "after")]
            assert moved == ["refs/heads/main", "0" * 40, tip]


def expect_deliveries(heard: Callable[[], list[dict[str, Any]]], count: int) -> None:
    """Raise NotYet until so many deliveries have arrived."""
    if len(heard()) < count:
        raise NotYet(f"{len(heard())} deliveries")


def test_gitea_calls_nobody_else(new: Server) -> None:
    """Not even if a repository's owner asks for it: Gitea is inside the cluster."""
    place = {"url": f"http://127.0.0.1:{urlsplit(stores.RECEIVER).port}/other"}
    config = {"config": place | {"content_type": "json"}}
    body = {"type": "gitea", "active": True, "events": ["push"]} | config
    hook = new.api().change("POST", f"repos/{DATASETS}/hooks", body)
    with listening(new) as heard:
        clone = new.clone(OWNER, DATASETS)
        for count in (1, 2):
            clone.commit()
            clone.push()
            wait_until(lambda: expect_deliveries(heard, count), what="the delivery", timeout=30)  # noqa: B023
        assert {told["path"] for told in heard()} == {urlsplit(stores.RECEIVER).path}
    new.api().change("DELETE", f"repos/{DATASETS}/hooks/{hook['id']}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"active": False},
        {"events": ["create"]},
        {"authorization_header": "Bearer another"},
        {"branch_filter": "release"},
        {"config": {"content_type": "form", "url": stores.RECEIVER}},
    ],
    ids=str,
)
def test_a_webhook_is_made_right(server: Server, wrong: dict[str, object]) -> None:
    (before,) = server.list_webhooks(DATASETS)
    server.api().change("PATCH", f"repos/{DATASETS}/hooks/{before['id']}", wrong)
    assert not gitea.has_fields(server.list_webhooks(DATASETS)[0], server.listener.webhook())
    server.prepare()
    (after,) = server.list_webhooks(DATASETS)
    assert after["id"] == before["id"]
    assert gitea.has_fields(after, server.listener.webhook())


def test_a_second_webhook_goes_and_those_of_others_stay(server: Server) -> None:
    path, wanted = f"repos/{DATASETS}/hooks", server.listener.webhook() | {"type": "gitea"}
    server.api().change("POST", path, wanted)
    own = {"url": "http://someone.example/", "content_type": "json"}
    kept = server.api().change("POST", path, wanted | {"config": own})
    assert len(server.list_webhooks(DATASETS)) == 3
    server.prepare()
    assert len(server.list_webhooks(DATASETS)) == 2
    server.api().change("DELETE", f"{path}/{kept['id']}")


# --- Rights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize("account", ACCOUNTS)
def test_what_git_lets_each_account_do(new: Server, account: str, repository: str) -> None:
    owner = new.clone(OWNER, repository)
    owner.commit()
    first = owner.push()  # the first one, into an empty repository
    if repository not in READ[account]:
        with pytest.raises(LabError, match=REFUSED):
            new.clone(account, repository)
        return
    clone = new.clone(account, repository)
    clone.commit()
    if repository in WRITE[account]:
        assert clone.push() != first
    else:
        with pytest.raises(AccessError):
            clone.push()
        assert owner.tip() == first


def test_nobody_gets_in_without_an_account(new: Server) -> None:
    new.tokens["nobody"] = "0" * 40
    try:
        for repository in REPOSITORIES:
            with pytest.raises(LabError, match=REFUSED):
                new.clone("nobody", repository)
            answer = requests.get(f"{new.url}/api/v1/repos/{repository}", timeout=10)
            assert answer.status_code in {401, 403, 404}
    finally:
        del new.tokens["nobody"]


def test_the_steps_may_make_the_first_push(new: Server) -> None:
    clone = new.clone(STEPS, DATASETS)
    clone.commit()
    first = clone.push()
    clone.commit()
    assert clone.push() not in {first, ""}


@pytest.mark.parametrize("account", [STEPS, OWNER])
def test_nobody_takes_back_what_was_pushed_to_the_datasets(new: Server, account: str) -> None:
    clone = new.clone(account, DATASETS)
    clone.commit()
    tip = clone.push()
    clone.commit("--amend")
    with pytest.raises(LabError, match="protected from force push"):
        clone.push("--force")
    with pytest.raises(LabError, match="cannot be deleted"):
        clone.git("push", "--quiet", "origin", ":main")
    wait_until(new.expect_branch, what="the first push", timeout=20)
    with pytest.raises(AccessError):
        new.api(account).change("DELETE", f"repos/{DATASETS}/branches/main")
    assert clone.tip() == tip


def test_the_rule_alone_keeps_the_branch(new: Server) -> None:
    """Also when it is no longer the default branch, which Gitea protects by itself."""
    clone = new.clone(OWNER, DATASETS)
    clone.commit()
    tip = clone.push()
    clone.git("push", "--quiet", "origin", "HEAD:refs/heads/other")
    wait_until(lambda: new.expect_branch("other"), what="the push", timeout=20)
    path = f"repos/{DATASETS}"
    assert new.api().change("PATCH", path, {"default_branch": "other"})["default_branch"] == "other"
    for account in (STEPS, OWNER):
        with pytest.raises(LabError, match="protected from deletion"):
            new.clone(account, DATASETS).git("push", "--quiet", "origin", ":main")
    assert clone.tip() == tip
    wait_until(new.prepare_when_idle, what="Gitea's work on the change before", timeout=20)
    assert new.api().get(f"repos/{DATASETS}")["default_branch"] == "main"


def test_the_owner_may_rewrite_the_pipelines(new: Server) -> None:
    clone = new.clone(OWNER, PIPELINES)
    clone.commit()
    before = clone.push()
    clone.commit("--amend")
    assert clone.push("--force") != before


@pytest.mark.parametrize("account", gitea.ROBOTS)
def test_the_others_make_and_administer_nothing(server: Server, account: str) -> None:
    own, token = server.api(account), server.api_with_token(account)
    rule = f"repos/{DATASETS}/branch_protections/main"
    for api in (own, token):
        with pytest.raises(AccessError):
            api.change("POST", "user/repos", {"name": "mine"})
        with pytest.raises(AccessError):
            api.change("POST", "orgs", {"username": "ours"})
        with pytest.raises(AccessError):
            api.change("PATCH", f"admin/users/{account}", {"login_name": "", "source_id": 0})
        with pytest.raises((AccessError, ServiceError), match=r"40[34]"):
            api.change("PATCH", rule, {"enable_force_push": True})
    assert not token.is_admitted("user")


# --- SSH ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guest:
    """Somebody who connects by SSH with a key, and trusts one server only."""

    server: Server
    key: Path
    host_key: Path

    def run(self, *words: str) -> str:
        """Run a command and return what it printed, whatever its exit code."""
        folder = self.server.folder
        (folder / "known-hosts").write_text(ssh.known_hosts_line(self.host_key.read_text("ascii")))
        (folder / "config").write_text(ssh.client_config(folder / "known-hosts"))
        command = ["ssh", "-F", str(folder / "config"), "-i", str(self.key)]
        env = {"PATH": os.environ["PATH"], "GIT_SSH_COMMAND": shlex.join(command)}
        how = command if words[:1] != ("git",) else []
        done = subprocess.run(
            [*how, *words],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    def git(self, command: str, repository: str, *words: str) -> str:
        return self.run("git", command, self.url(repository), *words)

    def url(self, repository: str) -> str:
        return f"ssh://{ssh.USER}@127.0.0.1:{self.server.ssh_port}/{repository}.git"


@pytest.fixture
def airflow(new: Server) -> Guest:
    """Return Airflow as it connects by SSH; its repository holds a commit."""
    if not ssh.has_ssh_client():
        pytest.skip("there is no ssh here")
    owner = new.clone(OWNER, TEAM_A)
    owner.commit()
    owner.push()
    return Guest(new, new.folder / "airflow.key", new.folder / "host.key")


def test_a_deploy_key_reads_its_repository(airflow: Guest) -> None:
    tip = airflow.server.clone(OWNER, TEAM_A).tip()
    assert airflow.git("ls-remote", TEAM_A, "refs/heads/main").split()[0] == tip
    assert airflow.git("clone", TEAM_A, f"clone-{next(serial)}").startswith("Cloning into")


@pytest.mark.parametrize("repository", [PIPELINES, DATASETS])
def test_a_deploy_key_opens_no_other_repository(airflow: Guest, repository: str) -> None:
    assert f"not authorized to read {repository}" in airflow.git("ls-remote", repository)


def test_a_deploy_key_changes_nothing_and_opens_no_shell(airflow: Guest) -> None:
    owner = airflow.server.clone(OWNER, TEAM_A)
    owner.commit()
    before = owner.tip()
    url = airflow.url(TEAM_A)
    pushed = airflow.run("git", "-C", str(owner.folder), "push", url, "HEAD:main")
    assert "not authorized to write" in pushed
    assert owner.tip() == before
    door = ["-p", str(airflow.server.ssh_port), f"{ssh.USER}@127.0.0.1"]
    assert "does not provide shell access" in airflow.run(*door)
    assert "git" not in airflow.run(*door, "ls /var/lib/gitea")


def test_another_key_and_another_server_are_refused(airflow: Guest) -> None:
    other = airflow.server.folder / "other.key"
    ssh.ensure_private_key(other)
    stranger = Guest(airflow.server, other, airflow.host_key)
    assert "Permission denied (publickey)" in stranger.git("ls-remote", TEAM_A)
    deceived = Guest(airflow.server, airflow.key, other)
    assert "Host key verification failed" in deceived.git("ls-remote", TEAM_A)


@pytest.mark.parametrize("wrong", ["absent", "writes", "other"])
def test_the_deploy_key_is_made_right_and_others_stay(server: Server, wrong: str) -> None:
    path, owner = f"repos/{TEAM_A}/keys", server.api()
    somebodys = {
        "title": f"theirs {next(serial)}",
        "key": ssh.public_key(ssh.generate_private_key()),
        "read_only": True,
    }
    kept = owner.change("POST", path, somebodys)
    (ours,) = [one for one in owner.get(path) if one["title"] == READER]
    owner.change("DELETE", f"{path}/{ours['id']}")
    if wrong == "writes":
        owner.change("POST", path, {"title": "x", "key": server.deploy_key, "read_only": False})
    if wrong == "other":
        owner.change(
            "POST",
            path,
            {"title": READER, "key": ssh.public_key(ssh.generate_private_key()), "read_only": True},
        )
    server.prepare()
    found = server.list_keys(TEAM_A)
    assert (READER, server.deploy_key, True) in found
    assert (somebodys["title"], somebodys["key"], True) in found
    assert len(found) == 2
    owner.change("DELETE", f"{path}/{kept['id']}")


# --- Failures, and what they print --------------------------------------------------------------


def test_a_failing_command_line_tells_no_password(running: Server) -> None:
    def run_admin(arguments: list[str]) -> str:
        if arguments[2] == "list":
            return "ID Username\n"
        error = LabError("it failed: generated random password is 'hunter22'\n  why", "try")
        error.output = f"a token: {'0123456789abcdef' * 2}01234567\n{error.what}"
        raise error

    with pytest.raises(LabError, match="why") as caught:
        gitea.create_owner(run_admin)
    told = caught.value.what + caught.value.output
    assert "hunter22" not in told
    assert "0123456789abcdef" not in told
    assert caught.value.__suppress_context__


def test_a_refused_owner_is_an_access_error(server: Server) -> None:
    """As when the account was blocked by hand."""
    api = gitea.api_with_password(server.url, OWNER, "wrong-Passw0rd")
    with pytest.raises(AccessError, match="'lab'") as caught:
        api.get(f"repos/{DATASETS}")
    assert "wrong-Passw0rd" not in repr(api) + repr(caught.value) + caught.value.what


def test_other_refusals_are_a_service_error(server: Server) -> None:
    with pytest.raises(ServiceError, match="422") as caught:
        server.api().change("POST", "admin/users", {"username": "x y", "password": "s3cret-word"})
    assert "s3cret-word" not in caught.value.what


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    nobody = Server("http://127.0.0.1:9", "", tmp_path)
    with pytest.raises(ServiceError, match="does not answer") as caught:
        nobody.prepare()
    assert nobody.password(OWNER) not in caught.value.what


def test_no_argument_and_no_log_holds_a_secret(running: Server) -> None:
    running.commands.clear()
    running.wipe()
    running.prepare()
    words = {word for command in running.commands for word in command}
    assert {"create", "generate-access-token"} <= words
    log = docker.docker("logs", running.container)
    assert log
    assert not [secret for secret in running.list_secrets() if secret in words or secret in log]


def test_the_listeners_secret_is_not_in_giteas_files(server: Server) -> None:
    """It is encrypted with a key that is in no file; the database is among the files."""
    docker.docker("exec", server.container, "grep", "-rqa", "repository", FILES)
    with pytest.raises(LabError):
        docker.docker("exec", server.container, "grep", "-rqa", server.listener.secret, FILES)
