"""SSH keys, the client's configuration, and labs that were created before the kit had either."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from lab import layout
from lab.backends.embedded import backend as embedded
from lab.backends.embedded import doctor
from lab.backends.embedded.services import gitserver
from lab.backends.embedded.site import find_site
from lab.config import Config
from lab.delivery import ssh, ssh_door
from lab.home import state
from lab.home.secrets import Secrets


@pytest.fixture
def config(tmp_path: Path) -> Config:
    found = Config(home=tmp_path / "größe und platz", database="sqlite")
    state.make_home(found)
    return found


# --- Keys ---------------------------------------------------------------------------------------


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ssh.ensure_private_key(path), range(8)))
    assert set(made) == {path.read_text("ascii")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ssh.ensure_private_key(tmp_path / "b.key") not in made


def test_what_a_killed_call_left_is_not_taken_for_a_key(tmp_path: Path) -> None:
    (tmp_path / "a.key.part").write_text("-----BEGIN")
    assert ssh.public_key(ssh.ensure_private_key(tmp_path / "a.key")).startswith("ssh-ed25519 ")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen here")
def test_openssh_reads_the_key_and_knows_its_public_half(tmp_path: Path) -> None:
    key = ssh.ensure_private_key(tmp_path / "a.key")
    command = ["ssh-keygen", "-y", "-f", str(tmp_path / "a.key")]
    assert subprocess.check_output(command, text=True).strip() == ssh.public_key(key)


@pytest.mark.skipif(not ssh.has_ssh_client(), reason="there is no ssh here")
@pytest.mark.parametrize("name", ["plain", "with blanks, and é", "it's"])
def test_a_client_understands_what_it_is_told(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config").write_text(ssh.client_config(folder / "known-hosts"))
    command = ["ssh", "-F", str(folder / "config"), "-G", "git@127.0.0.1"]
    said = subprocess.check_output(command, text=True).splitlines()
    assert f"userknownhostsfile {folder / 'known-hosts'}" in said
    assert {"batchmode yes", "stricthostkeychecking true", "identitiesonly yes"} <= set(said)
    assert {"hostkeyalias lab-git", "globalknownhostsfile /dev/null"} <= set(said)


def test_a_connection_holds_no_secret(config: Config) -> None:
    ssh_door.prepare_keys(config, layout.TEAM_A)
    known = ssh_door.airflow_connection(config, {ssh_door.NAME: 12_345}, layout.TEAM_A)
    assert known["host"] == "ssh://git@127.0.0.1:12345/lab/team-a.git"
    text = json.dumps(known)
    key = ssh.ensure_private_key(ssh_door.deploy_key_file(config))
    assert not [line for line in key.splitlines() if line in text]


def test_what_the_door_needs_is_there_and_stays(config: Config) -> None:
    ssh_door.prepare_keys(config, layout.TEAM_A)
    files = {p.name: p.read_bytes() for p in config.secrets.iterdir()}
    opened = json.loads(files["deploy-keys.json"])
    assert opened == {layout.TEAM_A: [ssh.public_key(files["team-a.key"].decode())]}
    ssh_door.prepare_keys(config, layout.TEAM_A)
    assert {p.name: p.read_bytes() for p in config.secrets.iterdir()} == files


# --- Older labs ---------------------------------------------------------------------------------


def test_a_lab_without_the_door_gets_it_with_the_next_up(config: Config) -> None:
    first = embedded.new_state(config)
    old = {name: port for name, port in first.ports.items() if name != ssh_door.NAME}
    state.write_state(config, state.with_ports(first, old))
    before = find_site(config)
    listening = [port.name for service in before.services for port in service.ports]
    assert ssh_door.NAME not in listening
    site = embedded.settle(config)
    assert site.ports == {**old, ssh_door.NAME: site.ports[ssh_door.NAME]}
    assert site.ports[ssh_door.NAME] not in old.values()
    assert asdict(embedded.settle(config).state) == asdict(site.state)


def test_a_lab_on_sqlite_gets_no_port_for_postgresql(config: Config) -> None:
    assert embedded.settle(config).ports.keys() == set(embedded.port_names("sqlite"))


def test_the_door_belongs_to_the_git_server() -> None:
    assert embedded.port_owner(ssh_door.NAME) == gitserver.NAME
    assert embedded.port_owner("seaweedfs-master") == "seaweedfs"
    assert embedded.port_owner("airflow-api-server") == "airflow-api-server"


# --- Without ssh --------------------------------------------------------------------------------


def test_without_ssh_airflow_comes_by_http_and_the_doctor_says_so(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {gitserver.NAME: 12_344, ssh_door.NAME: 12_345}
    monkeypatch.setenv("PATH", str(config.home))
    assert "by HTTP" in doctor.find_ssh_client(config)
    known = gitserver.airflow_connection(config, Secrets(config), ports, layout.TEAM_A)
    assert known["host"] == "http://127.0.0.1:12344/lab/team-a.git"
    assert layout.TEAM_A in gitserver.readable_repositories(layout.READER)
    assert gitserver.readable_repositories(layout.STEPS) == (layout.DATASETS,)
