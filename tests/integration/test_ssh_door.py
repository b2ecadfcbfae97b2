"""The git server's SSH door as its users see it: a real server, a real ssh, a real git."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import layout
from lab.backends.embedded.gitserver.accounts import Accounts
from lab.backends.embedded.services import gitserver
from lab.client import git as owner_git
from lab.delivery import publish, ssh, ssh_door
from lab.files import write_private_file
from lab.wait import NotYet, wait_until
from tests.support.stores import Stores

pytestmark = pytest.mark.skipif(not ssh.has_ssh_client(), reason="there is no ssh here")
OTHERS = [layout.PIPELINES, layout.DATASETS, "lab/none", "../secrets", "lab/team-a.git/.."]
REFUSED = "this key opens no such repository"


@dataclass(frozen=True)
class Guest:
    """Somebody with a key, and a belief about who the server is."""

    stores: Stores
    folder: Path
    key: Path
    config: Path

    @property
    def port(self) -> int:
        return self.stores.site.ports[ssh_door.NAME]

    @property
    def command(self) -> list[str]:
        return ["ssh", "-F", str(self.config), "-i", str(self.key), "-p", str(self.port)]

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_SSH_COMMAND": shlex.join(self.command[:-2]),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        return subprocess.run(
            words,
            env=env,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def ssh(self, *words: str, user: str = "git") -> subprocess.CompletedProcess[bytes]:
        return self.run(*self.command, f"{user}@127.0.0.1", *words)

    def git(self, command: str, repository: str, *words: str, user: str = "git") -> str:
        """Run git and return what it printed, with any exit code other than 0."""
        url = f"ssh://{user}@127.0.0.1:{self.port}/{repository}.git"
        done = self.run("git", command, url, *words)
        said = (done.stdout + done.stderr).decode()
        return said if done.returncode == 0 else f"exited with {done.returncode}: {said}"

    def tip(self) -> str:
        return self.git("ls-remote", layout.TEAM_A, "refs/heads/main")


@pytest.fixture
def airflow(stores: Stores, tmp_path: Path) -> Iterator[Guest]:
    """Yield Airflow as it connects by SSH; its repository holds a commit.

    Afterwards the same key opens it again, and the log holds no warning and no part of a key.
    """
    config = stores.config
    stores.grant(layout.TEAM_A)
    publish.ensure_first_commit(
        stores.lab, gitserver.repository_url(stores.site.ports, layout.TEAM_A)
    )
    before = ssh_door.deploy_keys_file(config).read_text("utf-8")
    yield Guest(
        stores, tmp_path, ssh_door.deploy_key_file(config), ssh_door.client_config_file(config)
    )
    write_private_file(ssh_door.deploy_keys_file(config), before)
    log = (config.logs / f"{gitserver.NAME}.log").read_text("utf-8")
    assert not [line for line in log.splitlines() if "Traceback" in line or "Warning" in line]
    assert not [
        part for key in config.secrets.rglob("*.key") for part in own_lines(key) if part in log
    ]


def own_lines(key: Path) -> list[str]:
    """Return the lines of a private key that no other key has."""
    return key.read_text("ascii").splitlines()[3:-1]


def create_other_key(folder: Path) -> Path:
    ssh.ensure_private_key(folder / "other.key")
    return folder / "other.key"


# --- Who is let in ------------------------------------------------------------------------------


def test_the_key_reads_its_repository(airflow: Guest) -> None:
    tip = airflow.stores.folder(layout.TEAM_A) / "refs" / "heads" / "main"
    assert airflow.tip().split()[0] == tip.read_text("ascii").strip()
    assert airflow.git("clone", layout.TEAM_A, "clone") == "Cloning into 'clone'...\n"
    assert (airflow.folder / "clone" / "README.md").exists()


def test_what_was_pushed_by_http_arrives_whole(airflow: Guest) -> None:
    content = os.urandom(3_000_000)
    clone = airflow.folder / "owner"
    url = gitserver.repository_url(airflow.stores.site.ports, layout.TEAM_A)
    lab = airflow.stores.lab
    owner_git.run_git(lab, "clone", "--quiet", url, clone, cwd=airflow.folder)
    (clone / "big").write_bytes(content)
    owner_git.run_git(lab, "add", "big", cwd=clone)
    owner_git.run_git(lab, "commit", "--quiet", "--message", "big", cwd=clone)
    owner_git.run_git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)
    with ThreadPoolExecutor(6) as pool:
        names = [f"clone-{n}" for n in range(6)]
        said = list(pool.map(lambda name: airflow.git("clone", layout.TEAM_A, name), names))
    assert said == [f"Cloning into '{name}'...\n" for name in names]
    assert all((airflow.folder / name / "big").read_bytes() == content for name in names)


@pytest.mark.parametrize("repository", OTHERS)
def test_it_opens_no_other_repository(airflow: Guest, repository: str) -> None:
    assert REFUSED in airflow.git("ls-remote", repository)


def test_it_can_not_push(airflow: Guest) -> None:
    before = airflow.tip()
    airflow.git("clone", layout.TEAM_A, "clone")
    said = airflow.run("git", "-C", "clone", "push", "origin", "HEAD:refs/heads/new")
    assert said.returncode and REFUSED in said.stderr.decode()
    assert airflow.tip() == before


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["ls"],
        ["git-receive-pack '/lab/team-a.git'"],
        ["git-upload-archive '/lab/team-a.git'"],
        ["git-upload-pack '/lab/team-a.git' ; ls"],
        ["git-upload-pack '/lab/team-a.git'\nls"],
        ["git-upload-pack --upload-pack=ls '/lab/team-a.git'"],
        ["git-upload-pack /lab/team-a.git"],
    ],
)
def test_it_runs_no_other_command(airflow: Guest, command: list[str]) -> None:
    done = airflow.ssh(*command)
    assert done.returncode == 128
    assert (done.stdout, REFUSED in done.stderr.decode()) == (b"", True)


def test_it_gets_no_terminal_no_files_and_no_way_through(airflow: Guest) -> None:
    assert "PTY allocation request failed" in airflow.ssh("-tt").stderr.decode()
    files = ["sftp", *airflow.command[1:5], "-P", str(airflow.port), "git@127.0.0.1"]
    assert "subsystem request failed" in airflow.run(*files, stdin=b"ls\n").stderr.decode()
    target = f"127.0.0.1:{airflow.stores.site.ports[gitserver.NAME]}"
    through = airflow.run(*airflow.command, "-W", target, "git@127.0.0.1").stderr.decode()
    assert "stdio forwarding failed" in through
    back = ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "git@127.0.0.1"]
    assert "forwarding failed" in airflow.run(*airflow.command, *back).stderr.decode()


# --- Who is not ---------------------------------------------------------------------------------


def test_another_key_is_refused(airflow: Guest) -> None:
    stranger = Guest(
        airflow.stores, airflow.folder, create_other_key(airflow.folder), airflow.config
    )
    assert "Permission denied (publickey)" in stranger.git("ls-remote", layout.TEAM_A)


def test_a_key_that_only_claims_to_be_the_right_one_is_refused(airflow: Guest) -> None:
    """The public half is no secret; the server asks for a proof."""
    key = create_other_key(airflow.folder)
    known = ssh.public_key(airflow.key.read_text("ascii"))
    key.with_name("other.key.pub").write_text(known)
    stranger = Guest(airflow.stores, airflow.folder, key, airflow.config)
    assert "Permission denied (publickey)" in stranger.git("ls-remote", layout.TEAM_A)


@pytest.mark.parametrize("user", ["lab", "root", "airflow"])
def test_another_user_is_refused(airflow: Guest, user: str) -> None:
    said = airflow.git("ls-remote", layout.TEAM_A, user=user)
    assert "Permission denied (publickey)" in said


def test_a_password_opens_nothing(airflow: Guest) -> None:
    ways = "none,password,keyboard-interactive,hostbased"
    done = airflow.ssh("-o", f"PreferredAuthentications={ways}", "-v")
    assert "Authentications that can continue: publickey\n" in done.stderr.decode().replace(
        "\r", ""
    )
    assert "Permission denied (publickey)" in done.stderr.decode()


def test_a_key_that_was_taken_out_opens_nothing_from_then_on(airflow: Guest) -> None:
    file = ssh_door.deploy_keys_file(airflow.stores.config)
    stays = json.dumps({layout.DATASETS: [ssh.public_key(airflow.key.read_text("ascii"))]})
    write_private_file(file, stays)
    assert REFUSED in airflow.git("ls-remote", layout.TEAM_A)
    write_private_file(file, "{}")
    assert "Permission denied (publickey)" in airflow.git("ls-remote", layout.TEAM_A)
    airflow.stores.kill(gitserver.NAME)
    airflow.stores.start()
    assert "Permission denied (publickey)" in airflow.git("ls-remote", layout.TEAM_A)


def test_another_server_on_the_port_is_not_believed(airflow: Guest) -> None:
    known_hosts = airflow.folder / "known-hosts"
    known_hosts.write_text(
        ssh.known_hosts_line(create_other_key(airflow.folder).read_text("ascii"))
    )
    config = airflow.folder / "config"
    config.write_text(ssh.client_config(known_hosts))
    guest = Guest(airflow.stores, airflow.folder, airflow.key, config)
    assert "Host key verification failed" in guest.git("ls-remote", layout.TEAM_A)


# --- Restarts and permissions -------------------------------------------------------------------


def test_a_killed_server_comes_back_with_the_same_keys(airflow: Guest) -> None:
    before = airflow.tip()
    airflow.stores.kill(gitserver.NAME)
    assert "exited with 128" in airflow.tip()
    airflow.stores.start()
    assert airflow.tip() == before


def test_a_client_that_goes_away_leaves_nothing_running(airflow: Guest) -> None:
    server = airflow.stores.find_process(gitserver.NAME)
    command = [*airflow.command, "git@127.0.0.1", "git-upload-pack '/lab/team-a.git'"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_until(lambda: expect(bool(list_git_processes(server))), what="git", timeout=20)
    client.kill()
    client.communicate()
    wait_until(lambda: expect(not list_git_processes(server)), what="the end of git", timeout=20)


def list_git_processes(server: Any) -> list[Any]:
    return [child for child in server.children(recursive=True) if child.name() == "git"]


def expect(condition: bool) -> None:
    if not condition:
        raise NotYet("it is not so")


def test_the_keys_are_for_their_owner_only(airflow: Guest) -> None:
    config = airflow.stores.config
    files = (
        ssh_door.host_key_file(config),
        ssh_door.deploy_key_file(config),
        ssh_door.deploy_keys_file(config),
    )
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 3


# --- Airflow's connection -----------------------------------------------------------------------


def test_where_there_is_no_ssh_airflow_comes_by_http(
    airflow: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = airflow.stores.site
    wanted = site.config, site.secrets, site.ports, layout.TEAM_A
    by_key = gitserver.airflow_connection(*wanted)
    assert str(by_key["host"]).startswith("ssh://git@127.0.0.1:")
    assert "password" not in by_key
    assert gitserver.build_account(site.secrets, layout.READER).read == layout.READ["airflow"]
    monkeypatch.setattr(ssh, "has_ssh_client", lambda: False)
    by_http = gitserver.airflow_connection(*wanted)
    assert str(by_http["host"]).startswith("http://127.0.0.1:")
    assert layout.TEAM_A in gitserver.build_account(site.secrets, layout.READER).read


def test_a_lab_of_an_earlier_version_gets_the_rights_to_the_new_repository(
    airflow: Guest, tmp_path: Path
) -> None:
    secrets, path = airflow.stores.site.secrets, tmp_path / "accounts.json"
    gitserver.ensure_accounts(path, secrets)
    whole = json.loads(path.read_text("utf-8"))
    old = json.loads(path.read_text("utf-8"))
    del old["steps"]  # revoked
    old["lab"]["read"] = old["lab"]["write"] = ["lab/own", "lab/pipelines"]
    path.write_text(json.dumps(old))
    gitserver.ensure_accounts(path, secrets)
    known = Accounts(path).read_accounts()
    assert known.keys() == {"lab", "airflow"}
    assert known["lab"].sha256 == whole["lab"]["sha256"]
    assert known["lab"].read == ("lab/own", *layout.REPOSITORIES)
    path.write_text("{")
    gitserver.ensure_accounts(path, secrets)
    assert Accounts(path).read_accounts() == {}
