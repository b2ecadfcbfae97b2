"""The supervisor of a port-forward, with a script as kubectl.

The script serves HTTP on the local port; files in its folder control how it answers.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.backends.kind import doors, node
from lab.cluster import forward, tools
from lab.cluster.workloads import GITEA, POSTGRESQL
from lab.config import KIT, Config
from lab.wait import NotYet, wait_until

# The file `answer` holds the status code, or `silent` for no answer at all.
KUBECTL = r"""
import json, os, socket, sys, time

folder, *argv = sys.argv[1:]
with open(folder + "/calls", "a") as file:
    print(json.dumps([os.getpid(), *argv]), file=file)
if os.path.exists(folder + "/broken"):
    sys.exit("error: unable to forward port")
while os.path.exists(folder + "/slow"):
    time.sleep(0.01)
listener = socket.create_server((argv[argv.index("--address") + 1], int(argv[-1].split(":")[0])))
while True:
    connection, _ = listener.accept()
    request = connection.recv(4096).decode()
    path = request.split()[1] if request else ""
    answer = open(folder + "/answer").read()
    if answer != "silent" and path == "/health":
        connection.sendall(f"HTTP/1.0 {answer} x\r\nContent-Length: 0\r\n\r\n".encode())
    connection.close()
"""
# The same process with shorter pauses, which keeps the tests fast.
HASTY = """
from lab.cluster import forward
forward.LOOK_SECONDS, forward.ANSWER_SECONDS, forward.PAUSE_SECONDS = 0.1, 1, 0.02
forward.main()
"""
IMPATIENT = HASTY.replace("forward.main", "forward.START_SECONDS = 0.5; forward.main")


@dataclass(frozen=True)
class Forward:
    """A supervisor, and the kubectl that it starts."""

    folder: Path
    port: int
    process: subprocess.Popen[str]

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/health"

    def set_answer(self, text: str) -> None:
        part = self.folder / "answer.part"
        part.write_text(text)
        part.replace(self.folder / "answer")

    def read_calls(self) -> list[list[Any]]:
        """Return each call of kubectl: its process id, then its arguments."""
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def wait_until_answering(self, url: str = "") -> None:
        wait_for(lambda: forward.check_answer(url or self.url))

    def wait_until_started(self, times: int) -> None:
        """Wait until kubectl was started at least `times` times."""

        def look() -> None:
            if not (self.folder / "calls").exists() or len(self.read_calls()) < times:
                raise NotYet("not often enough")

        wait_for(look)

    def find_kubectl(self) -> psutil.Process:
        """Return the newest kubectl; wait for one: the last may have just ended."""

        def look() -> psutil.Process:
            try:
                return psutil.Process(self.read_calls()[-1][0])
            except psutil.NoSuchProcess as error:
                raise NotYet(str(error)) from error

        return wait_until(look, what="kubectl", timeout=20, interval=0.01)


def wait_for(check: Callable[[], object]) -> None:
    wait_until(check, what="it", timeout=20, interval=0.01)


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Forward]]:
    """Yield a function that starts a supervisor; kill it and its children afterwards."""
    monkeypatch.setenv("NO_PROXY", "*")
    started: list[subprocess.Popen[str]] = []

    def start_supervisor(*how: str) -> Forward:
        (tmp_path / "kubectl.py").write_text(KUBECTL)
        kubectl = tmp_path / "kubectl"
        words = shlex.join(map(str, (sys.executable, "-ISs", tmp_path / "kubectl.py", tmp_path)))
        kubectl.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        kubectl.chmod(0o755)
        (tmp_path / "kubeconfig").touch()
        port = find_free_port()
        arguments = (kubectl, tmp_path / "kubeconfig", "stores", "gitea", port, 3000, "/health")
        process = subprocess.Popen(
            [sys.executable, *how, *map(str, arguments)],
            cwd=KIT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        found = Forward(tmp_path, port, process)
        found.set_answer("200")
        return found

    yield start_supervisor
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)  # so that it can't start another kubectl
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
        process.communicate()


@pytest.fixture
def hasty(start: Callable[..., Forward]) -> Forward:
    return start("-c", HASTY)


def test_the_command_forwards_on_loopback_alone(start: Callable[..., Forward]) -> None:
    found = start("-m", "lab.cluster.forward")
    found.wait_until_answering()
    (call,) = found.read_calls()
    assert call[1:] == [
        *("--kubeconfig", str(found.kubeconfig), "port-forward", "--address", "127.0.0.1"),
        *("--namespace", "stores", "service/gitea", f"{found.port}:3000"),
    ]
    listening = [
        connection.laddr
        for process in (psutil.Process(found.process.pid), found.find_kubectl())
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", found.port)]


def test_a_kubectl_that_answers_is_left_alone(hasty: Forward) -> None:
    hasty.wait_until_answering()
    before = hasty.read_calls()
    with pytest.raises(subprocess.TimeoutExpired):
        hasty.process.wait(0.5)
    assert hasty.read_calls() == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_kubectl_that_ends_is_started_again(hasty: Forward, how: signal.Signals) -> None:
    hasty.wait_until_answering()
    for times in (2, 3):
        hasty.find_kubectl().send_signal(how)
        hasty.wait_until_started(times)
        hasty.wait_until_answering()
    assert hasty.process.poll() is None


@pytest.mark.parametrize("answer", ["silent", "502"])
def test_a_kubectl_that_stops_answering_is_started_again(hasty: Forward, answer: str) -> None:
    hasty.wait_until_answering()
    first = hasty.find_kubectl()
    hasty.set_answer(answer)
    hasty.wait_until_started(2)
    hasty.set_answer("200")
    hasty.wait_until_answering()
    assert not first.is_running()
    hasty.kubeconfig.unlink()
    hasty.find_kubectl().kill()
    said, _ = hasty.process.communicate(timeout=20)
    assert f"nothing answers at {hasty.url}: forwarding anew\n" in said


def test_one_look_without_an_answer_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward to a server that is busy for a moment is kept."""
    served = iter([True, False, False, True, False, False, False])
    monkeypatch.setattr(forward, "LOOK_SECONDS", 0)
    monkeypatch.setattr(forward, "is_answering", lambda _: next(served))
    monkeypatch.setattr(forward, "is_listening", lambda _: True)
    with subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(600)"]) as process:
        forward.supervise(process, "http://127.0.0.1:9/")
    assert process.returncode == -signal.SIGKILL
    assert list(served) == []


def test_a_kubectl_that_can_not_forward_yet_is_tried_again(hasty: Forward, tmp_path: Path) -> None:
    """This happens while the node is starting."""
    hasty.wait_until_answering()
    (tmp_path / "broken").touch()
    hasty.find_kubectl().kill()
    hasty.wait_until_started(3)
    (tmp_path / "broken").unlink()
    hasty.wait_until_answering()


def test_a_kubectl_that_starts_slowly_is_waited_for(hasty: Forward, tmp_path: Path) -> None:
    """Started anew, it would not be faster, and its start keeps the machine busy."""
    hasty.wait_until_answering()
    (tmp_path / "slow").touch()
    hasty.find_kubectl().kill()
    hasty.wait_until_started(2)
    with pytest.raises(subprocess.TimeoutExpired):
        hasty.process.wait(1)  # ten looks
    (tmp_path / "slow").unlink()
    hasty.wait_until_answering()
    assert len(hasty.read_calls()) == 2


def test_a_kubectl_that_never_listens_is_started_again(
    start: Callable[..., Forward], tmp_path: Path
) -> None:
    (tmp_path / "slow").touch()
    found = start("-c", IMPATIENT)
    found.wait_until_started(2)
    (tmp_path / "slow").unlink()
    found.wait_until_answering()


def test_restarts_that_do_not_help_become_rarer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []
    helped = iter([False, False, False, False, False, True, False])

    def supervise(process: subprocess.Popen[bytes], _: str, patience: int, __: object) -> bool:
        process.wait()
        asked.append(patience)
        return next(helped)

    monkeypatch.setattr(forward, "supervise", supervise)
    monkeypatch.setattr(forward, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(forward, "is_wanted", lambda _: len(asked) < 7)
    arguments = ["true", str(tmp_path), "stores", "gitea", "11234", "3000", "/"]
    monkeypatch.setattr(sys, "argv", ["forward", *arguments])
    forward.main()
    assert asked == [3, 6, 12, 24, 24, 24, 3]


def test_it_ends_when_the_cluster_is_gone(hasty: Forward) -> None:
    hasty.wait_until_answering()
    before = hasty.read_calls()  # more than one where Python starts slower than 0.3 s
    hasty.kubeconfig.unlink()
    hasty.find_kubectl().kill()
    assert hasty.process.wait(20) == 0
    assert hasty.read_calls() == before


# --- The service --------------------------------------------------------------------------------


def test_the_service_runs_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda name: tmp_path / name)
    config = Config(home=tmp_path / "lab")
    service = doors.forward_service(config, GITEA, 11_234)
    assert service.command == (
        *(sys.executable, "-m", "lab.cluster.forward", str(tmp_path / "kubectl")),
        *(str(node.kubeconfig_path(config)), "stores", "gitea", "11234", "3000", "/api/healthz"),
    )
    (port,) = service.ports
    assert (port.name, port.number) == ("gitea", 11_234)


def test_what_has_no_door_is_not_forwarded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="postgresql has no door"):
        doors.forward_service(Config(home=tmp_path), POSTGRESQL, 11_234)


def test_ready_means_that_the_door_answers(start: Callable[..., Forward]) -> None:
    with pytest.raises(OSError, match="refused"):
        forward.check_answer(f"http://127.0.0.1:{find_free_port()}/health")
    found = start("-c", HASTY)
    found.wait_until_answering()
    with pytest.raises(OSError):  # noqa: PT011 - any: the script just closes the connection
        forward.check_answer(found.url.replace("health", "other"))
    found.set_answer("404")
    with pytest.raises(NotYet, match=f"{found.url} answers 404"):
        forward.check_answer(found.url)
