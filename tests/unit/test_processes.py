"""Services outlive the command that starts them, are found again, and end with their children."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab.config import KIT, Config
from lab.errors import ServiceError
from lab.foreign import NO_AWS
from lab.home import processes, state
from lab.model import Service
from lab.wait import NotYet, wait_until

SERVER = """if True:
    import http.server, sys
    handler = http.server.SimpleHTTPRequestHandler
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
"""
PARENT = """if True:
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""
DEAF = """if True:
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(600)
"""
HEIR = """if True:
    import signal, subprocess, sys, time
    def leave(*_):
        subprocess.Popen(["sleep", "600"])
        sys.exit()
    signal.signal(signal.SIGTERM, leave)
    print("ready", flush=True)
    time.sleep(600)
"""
IDLE = "import time; time.sleep(600)"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """Yield the Config of a new home; kill its processes afterwards."""
    config = Config(home=tmp_path / "lab")
    state.make_home(config)
    yield config
    for process in processes.list_processes(config):
        process.kill()


def service(config: Config, code: str, *arguments: str, name: str = "thing") -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-u", "-c", code, *arguments),
        folder=config.data,
        environment={"COLOUR": "red"},
        ready=lambda: None,
    )


def server(config: Config, port: int) -> Service:
    def connect() -> None:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()

    return replace(service(config, SERVER, str(port), name="server"), ready=connect)


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def read_first_line(config: Config, name: str = "thing") -> str:
    """Wait for the first line of a service's log and return it."""

    def read_line() -> str:
        text = processes.log_path(config, name).read_text("utf-8")
        if "\n" not in text:
            raise NotYet(text)
        return text.splitlines()[0]

    return wait_until(read_line, what=name, timeout=20, interval=0.02)


def require_process(config: Config, name: str = "thing") -> psutil.Process:
    found = processes.find_process(config, name)
    assert found
    return found


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# --- Starting and finding -----------------------------------------------------------------------


def test_a_service_is_started_once_and_answers(config: Config) -> None:
    web = server(config, find_free_port())
    assert processes.find_process(config, "server") is None
    assert processes.ensure_running(config, web) is True
    processes.wait_until_ready(config, web, 20)
    pid = require_process(config, "server").pid
    assert processes.ensure_running(config, web) is False
    assert require_process(config, "server").pid == pid
    assert [p.pid for p in processes.list_processes(config)] == [pid]


@pytest.mark.parametrize("change", ["command", "environment", "code"])
def test_a_service_that_would_be_started_otherwise_is_started_anew(
    config: Config, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    before = service(config, IDLE)
    after = {
        "command": replace(before, command=(*before.command, "more")),
        "environment": replace(before, environment={**before.environment, "COLOUR": "blue"}),
        "code": replace(before, code=lambda: "of a newer kit"),
    }[change]
    processes.ensure_running(config, before)
    old = require_process(config)
    assert processes.ensure_running(config, after) is True
    assert (
        "started anew, since the kit or a setting has changed: thing\n" in capsys.readouterr().out
    )
    assert is_gone(old.pid)
    assert processes.ensure_running(config, after) is False


def test_a_service_outlives_the_command_that_started_it(config: Config) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from lab.home import processes
        from lab.config import Config
        from lab.model import Service
        config = Config(home=Path(sys.argv[1]))
        command = (sys.executable, "-c", "import time; time.sleep(600)")
        processes.ensure_running(config, Service("thing", command, config.data, {}, lambda: None))
    """
    command = [sys.executable, "-c", code, str(config.home)]
    with subprocess.Popen(command, cwd=KIT, start_new_session=True) as starter:
        assert starter.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(starter.pid, signal.SIGKILL)  # as a closed terminal does
    assert require_process(config).is_running()


def test_a_service_is_the_leader_of_a_session_of_its_own(config: Config) -> None:
    processes.ensure_running(config, service(config, IDLE))
    assert os.getsid(require_process(config).pid) == require_process(config).pid


def test_a_service_sees_nothing_of_the_callers_environment(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("LAB_HOME", "/elsewhere")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("HOME", "/mine")
    processes.ensure_running(config, service(config, IDLE))
    env = require_process(config).environ()
    assert env["COLOUR"] == "red"
    assert env["TZ"] == "UTC"
    assert (env[processes.MARK], env[processes.NAME]) == (str(config.home), "thing")
    assert env.items() >= NO_AWS.items()
    assert env["HOME"] == str(config.run)
    ours = {"COLOUR", "HOME", processes.MARK, processes.NAME, processes.VERSION, *NO_AWS}
    assert set(env) <= {*ours, *processes.INHERITED}


def test_a_service_writes_its_log_and_private_files_into_its_folder(config: Config) -> None:
    code = "import os, sys; open('file', 'w'); print('out'); print('err', file=sys.stderr)"
    processes.ensure_running(config, service(config, code + f"; {IDLE}"))
    assert read_first_line(config) == "out"
    wait_until((config.data / "file").stat, what="file", timeout=20)
    assert stat.S_IMODE((config.data / "file").stat().st_mode) == 0o600
    assert processes.log_path(config, "thing").parent == config.logs


def test_a_log_is_continued_by_the_next_start(config: Config) -> None:
    for word in ("one", "two"):
        processes.start_service(config, service(config, f"print('{word}')"))
        wait_until(lambda word=word: require_logged(config, word), what=word, timeout=20)  # type: ignore[misc]
    assert processes.log_path(config, "thing").read_text() == "one\ntwo\n"


def require_logged(config: Config, word: str) -> None:
    if word not in processes.log_path(config, "thing").read_text():
        raise NotYet(word)


def test_what_a_service_needs_is_prepared_each_time_it_starts(config: Config) -> None:
    prepared: list[bool] = []
    note = lambda: prepared.append(processes.find_process(config, "thing") is None)  # noqa: E731
    careful = replace(service(config, IDLE), prepare=note)
    processes.ensure_running(config, careful)
    processes.ensure_running(config, careful)
    assert prepared == [True]


def test_a_service_whose_environment_can_not_be_read_yet_is_waited_for(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is empty just after exec on a busy machine; the service must not be started twice."""
    read_environ, looks = psutil.Process.environ, iter(range(1000))

    def delay_environ(process: psutil.Process) -> dict[str, str]:
        ours = process.ppid() == os.getpid()
        return {} if ours and next(looks) < 3 else read_environ(process)

    monkeypatch.setattr(psutil.Process, "environ", delay_environ)
    processes.start_service(config, service(config, IDLE))
    assert require_process(config)
    assert len(processes.list_processes(config)) == 1


def test_a_process_that_died_is_not_found(config: Config) -> None:
    processes.ensure_running(config, service(config, IDLE))
    process = require_process(config)
    process.kill()
    wait_until(lambda: require_gone(process.pid), what="its end", timeout=20)
    assert processes.find_process(config, "thing") is None
    assert processes.ensure_running(config, service(config, IDLE)) is True


def require_gone(pid: int) -> None:
    if not is_gone(pid):
        raise NotYet(f"{pid} runs")


def test_a_stranger_with_the_same_id_is_neither_believed_nor_ended(config: Config) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (config.run / "thing.pid").write_text(str(stranger.pid))
        assert processes.find_process(config, "thing") is None
        assert processes.terminate_all(config) == 0
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize(
    "text",
    ["", "x", "1", "-1", "99999999999999999999"],
)
def test_a_broken_record_is_no_service(text: str, config: Config) -> None:
    (config.run / "thing.pid").write_text(text)
    assert processes.find_process(config, "thing") is None


def test_a_service_whose_record_is_lost_is_replaced_not_doubled(config: Config) -> None:
    processes.ensure_running(config, service(config, IDLE))
    first = require_process(config)
    (config.run / "thing.pid").unlink()
    assert processes.ensure_running(config, service(config, IDLE)) is True
    assert is_gone(first.pid)
    assert len(processes.list_processes(config)) == 1


# --- Ending -------------------------------------------------------------------------------------


def test_everything_is_ended_and_counted(config: Config) -> None:
    processes.ensure_running(config, service(config, PARENT))
    processes.ensure_running(config, service(config, IDLE, name="other"))
    child = int(read_first_line(config))
    leaders = [require_process(config).pid, require_process(config, "other").pid]
    assert processes.terminate_all(config) == 3
    assert all(map(is_gone, [child, *leaders]))
    assert not list(config.run.glob("*.pid"))
    assert processes.terminate_all(config) == 0


def test_children_of_a_killed_service_are_found_by_the_mark(config: Config) -> None:
    processes.ensure_running(config, service(config, PARENT))
    child = int(read_first_line(config))
    require_process(config).kill()
    assert [p.pid for p in processes.list_processes(config, "thing") if p.pid == child] == [child]
    processes.start_service(config, service(config, IDLE))
    assert is_gone(child)
    assert len(processes.list_processes(config)) == 1


def test_who_does_not_listen_is_killed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    processes.ensure_running(config, service(config, DEAF))
    assert read_first_line(config) == "deaf"
    began = time.monotonic()
    assert processes.terminate_all(config) == 1
    assert 0.4 < time.monotonic() - began < 5
    assert not processes.list_processes(config)


def test_who_is_started_while_others_end_is_ended_too(config: Config) -> None:
    processes.ensure_running(config, service(config, HEIR))
    assert read_first_line(config) == "ready"
    assert processes.terminate_all(config) == 2
    assert not processes.list_processes(config)


def test_a_stopped_process_is_ended(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    processes.ensure_running(config, service(config, IDLE))
    require_process(config).suspend()
    assert processes.terminate_all(config) == 1
    assert not processes.list_processes(config)


def test_a_process_that_nobody_reaps_is_not_waited_for(config: Config) -> None:
    marks = {processes.MARK: str(config.home), "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "600"], env=marks) as unreaped:
        began = time.monotonic()
        assert processes.terminate_all(config) == 1
        assert time.monotonic() - began < 5
        assert psutil.Process(unreaped.pid).status() == psutil.STATUS_ZOMBIE


def test_another_lab_is_left_alone(config: Config, tmp_path: Path) -> None:
    other = Config(home=tmp_path / "lab2")
    state.make_home(other)
    try:
        processes.ensure_running(config, service(config, IDLE))
        processes.ensure_running(other, service(other, IDLE))
        assert processes.terminate_all(config) == 1
        assert require_process(other).is_running()
    finally:
        assert processes.terminate_all(other) == 1


def test_this_very_command_is_not_ended(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab down` may be typed in a terminal that a process of the lab has opened."""
    code = "import sys; from pathlib import Path; from lab.home import processes; "
    code += "from lab.config import Config; config = Config(home=Path(sys.argv[1])); "
    code += "print(processes.terminate_all(config))"
    monkeypatch.setenv(processes.MARK, str(config.home))
    command = [sys.executable, "-c", code, str(config.home)]
    done = subprocess.run(command, cwd=KIT, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_the_memory_of_a_lab_is_that_of_its_processes(config: Config) -> None:
    assert processes.measure_memory(config) == 0
    processes.ensure_running(config, service(config, f"x = b'x' * 2**26; print('x'); {IDLE}"))
    assert read_first_line(config) == "x"
    assert 2**26 < processes.measure_memory(config) < 2**28


# --- Waiting for an answer ----------------------------------------------------------------------


def test_a_service_that_dies_again_is_given_up_at_once_with_its_log(config: Config) -> None:
    dying = server(config, find_free_port())
    code = "print('no room left'); import sys; sys.exit(3)"
    dying = replace(dying, command=service(config, code).command)
    processes.ensure_running(config, dying)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="server exited before it answered") as caught:
        processes.wait_until_ready(config, dying, 60)
    assert time.monotonic() - began < 10
    assert caught.value.log == processes.log_path(config, "server")
    assert caught.value.log.read_text() == "no room left\n" * 2


def test_a_service_that_dies_is_started_once_more(config: Config) -> None:
    web = server(config, find_free_port())
    code = "import os, sys\nif not os.path.exists('been'): open('been', 'w'); sys.exit(3)\n"
    web = replace(web, command=(sys.executable, "-c", code + SERVER, web.command[-1]))
    processes.ensure_running(config, web)
    processes.wait_until_ready(config, web, 20)
    assert (config.data / "been").exists()
    assert require_process(config, "server").is_running()


def test_a_service_that_does_not_answer_is_given_up_in_time(config: Config) -> None:
    silent = server(config, find_free_port())
    silent = replace(silent, command=service(config, IDLE).command)
    processes.ensure_running(config, silent)
    with pytest.raises(ServiceError, match=r"server was not ready after 1 s: .*refused") as caught:
        processes.wait_until_ready(config, silent, 0.6)
    assert caught.value.log == processes.log_path(config, "server")
