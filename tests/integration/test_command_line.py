"""`python -m lab` as a person runs it: each refusal takes two lines and changes nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest

from lab import console
from lab.__main__ import app, config_from_options, main, next_steps
from lab.backends import choices
from lab.backends.embedded import backend as embedded
from lab.backends.embedded.services import gitserver, seaweedfs
from lab.backends.embedded.site import find_site
from lab.config import KIT, TABLE_DAG, Config
from lab.errors import (
    BackendError,
    BusyError,
    ConfError,
    DatasetEmpty,
    DatasetError,
    DatasetMissing,
    DatasetNotUtf8,
    DatasetRagged,
    DatasetWithoutHeader,
    DiskError,
    HomeError,
    LabError,
    MachineError,
    NotRunningError,
    PortError,
    ProjectError,
)
from lab.foreign import NO_AWS
from lab.home import processes, state
from lab.home.secrets import Secrets
from lab.home.state import State
from lab.lab import Lab
from lab.model import Access, Proof, Version
from lab.wait import NotYet, wait_until
from tests.support.attested import PROOF
from tests.support.histories import build_lab

PROGRAMS = Path(sys.executable).parent  # `lab` itself, `weed`, `airflow`: no git among them
NOBODY = 65534
# Root may write everywhere; without these capabilities it is like any other user.
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
COMMANDS = console.COMMANDS
NEED_A_LAB = [
    ("run", "dataset_pipeline"),
    ("verify",),
    ("status",),
    ("env",),
    ("open",),
    ("logs",),
    ("unpause", "dataset_pipeline"),
]
Tree = dict[str, tuple[int, int, bytes]]


@dataclass(frozen=True)
class Answer:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Yield a home that does not exist yet; kill the processes left of it, and fail if any were."""
    folder = tmp_path / "lab"
    yield folder
    left = processes.list_processes(Config(home=folder))
    processes.send_signal(left, signal.SIGKILL)
    assert not left


def environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return the command's environment: the choices given, and nothing of the tests' own."""
    path = {"PATH": os.environ["PATH"], "HOME": str(home.parent), "LANG": "C.UTF-8"}
    return {**path, "LAB_HOME": str(home), "LAB_BACKEND": "embedded", **more}


def run_lab(
    home: Path,
    *arguments: str | Path,
    before: Sequence[str] = (),
    user: int | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Run `python -m lab` with this LAB_HOME and these variables."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "lab", *map(str, arguments)],
        cwd=KIT,
        env=environment(home, variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=120,
        check=False,
        user=user,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def snapshot_tree(folder: Path) -> Tree:
    """Return the mode and bytes of all below a folder, and when a folder got or lost a name."""
    return {str(path): snapshot_file(path) for path in [folder, *folder.rglob("*")]}


def snapshot_file(path: Path) -> tuple[int, int, bytes]:
    found = path.lstat()
    if stat.S_ISREG(found.st_mode):
        return found.st_mode, 0, path.read_bytes()
    return found.st_mode, found.st_mtime_ns, b""


@contextmanager
def expecting_no_change(home: Path) -> Iterator[None]:
    """Fail if the block creates, changes or removes a file around the home or starts a process."""
    files, running = snapshot_tree(home.parent), list_pids(home)
    yield
    assert snapshot_tree(home.parent) == files
    assert list_pids(home) == running


def list_pids(home: Path) -> list[int]:
    """List the ids of all processes of this home."""
    return sorted(process.pid for process in processes.list_processes(Config(home=home)))


def check_refusal(answer: Answer, kind: type[LabError] | int) -> Answer:
    """Check that the answer is a refusal of this kind, in the form that all have; return it."""
    code = kind if isinstance(kind, int) else kind.exit_code
    assert answer.code == code, answer
    assert re.match(r"error: .+\n  try: .+\n", answer.err, re.DOTALL), answer
    assert "Traceback" not in answer.out + answer.err
    return answer


@pytest.fixture
def listener() -> Iterator[int]:
    """Listen on a port and yield it: this very process holds it."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def create_home(home: Path) -> Config:
    """Create a home as a first `up` does before it starts anything: its choices and its secrets."""
    config = Config(home=home)
    with state.exclusive_lock(config):
        site = embedded.settle(config)
        assert site.lab
        assert site.services
    return config


def read_state(home: Path) -> State:
    found = state.read_state(Config(home=home))
    assert found
    return found


# --- Arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["frobnicate", "up --frobnicate", "run"])
def test_a_command_line_that_makes_no_sense(words: str, home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, *words.split()), console.USAGE)
    assert "try: lab --help" in answer.err


@pytest.mark.parametrize("words", ["--frob", "run a --timeout soon", "up --dataset", "run a b"])
def test_more_that_makes_no_sense(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_in_process(words.split(), monkeypatch)
    check_refusal(Answer(code, *capsys.readouterr()), console.USAGE)


def test_fixes_name_the_commands_that_there_are() -> None:
    names = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    assert sorted(names) == sorted(COMMANDS)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_every_command_explains_itself(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in_process([*command, "--help"], monkeypatch) == 0
    assert "Usage:" in capsys.readouterr().out


def test_help_needs_nothing(home: Path) -> None:
    bad = {"PATH": str(PROGRAMS), "LAB_DATABASE": "nonsense"}
    with expecting_no_change(home):
        answer = run_lab(home, "--help", variables=bad)
    assert (answer.code, answer.err) == (0, "")
    assert all(name in answer.out for name in COMMANDS)


def test_an_unknown_backend(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", "--backend", "moon"), BackendError)
        assert run_lab(home, "up", variables={"LAB_BACKEND": "moon"}) == answer
        assert run_lab(home, "doctor", "--backend", "moon") == answer
        assert run_lab(home, "--backend", "moon") == answer
    assert "unknown backend 'moon'" in answer.err
    assert "embedded" in answer.err


def test_an_option_of_up_before_another_command_is_refused(home: Path) -> None:
    with expecting_no_change(home):
        answer = run_lab(home, "--backend", "embedded", "down", "--purge")
    check_refusal(answer, console.USAGE)
    assert "lab down --backend" in answer.err


def test_what_to_do_can_be_typed_where_nox_is_all_there_is(home: Path) -> None:
    assert "try: lab up makes one" in run_lab(home, "status").err
    inside = run_lab(home, "status", variables={"NOX_CURRENT_SESSION": "lab"})
    assert "try: nox -s lab -- up makes one" in inside.err


def test_an_unknown_database(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", "--database", "oracle"), LabError)
        assert run_lab(home, "up", variables={"LAB_DATABASE": "oracle"}) == answer
    assert "choose one of sqlite, postgresql" in answer.err


@pytest.mark.parametrize("conf", ["note=nightly", "[1]"])
def test_a_conf_that_is_no_object_is_told_before_a_lab_is_looked_for(conf: str, home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "run", "dataset_pipeline", "--conf", conf), ConfError)
    assert """--conf '{"note": "nightly"}'""" in answer.err


# --- Datasets -----------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes | None, type[LabError]]] = {
    "missing": (None, DatasetMissing),
    "empty": (b"", DatasetEmpty),
    "no header": (b"1,2\n3,4\n", DatasetWithoutHeader),
    "ragged": (b"a,b\n1,2\n1,2,3\n", DatasetRagged),
    "not UTF-8": (b"a,b\n1,gr\xf6\xdfer\n", DatasetNotUtf8),
}


@pytest.mark.parametrize("name", BAD)
def test_a_dataset_that_can_not_be_versioned(name: str, home: Path) -> None:
    content, kind = BAD[name]
    path = home.parent / f"{name}.csv"
    if content is not None:
        path.write_bytes(content)
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", "--dataset", path), kind)
    assert answer.err.startswith(f"error: {path}: ")


def test_a_folder_that_dvc_can_not_keep(home: Path) -> None:
    folder = home.parent / "folder"
    folder.mkdir()
    with expecting_no_change(home):
        check_refusal(run_lab(home, "up", "--dataset", folder), DatasetEmpty)
    (folder / "link").symlink_to(home.parent)
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", "--dataset", f"{folder}/"), DatasetError)
    assert answer.code == DatasetError.exit_code
    assert answer.err.startswith(f"error: {folder}/link: is a symbolic link, which DVC does not ke")


def test_data_sets_that_can_not_be_right_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is declared would be at the dataset's own path."""
    monkeypatch.setenv("LAB_HOME", str(home))
    monkeypatch.setenv("LAB_BACKEND", "embedded")
    (home.parent / "dags").mkdir()
    data = '[data.dataset]\npath = "x"\n[data.mine]\npath = "datasets/a.bin"\n'
    head = '[kit]\nversion = "0.2.0"\n[lab]\nname = "mine"\ndag = "mine"\n'
    (home.parent / "lab.toml").write_text(head + data)
    (home.parent / "a.bin").write_bytes(b"\0")
    monkeypatch.setenv("LAB_PROJECT", str(home.parent))
    code = run_in_process(["up", "--dataset", str(home.parent / "a.bin")], monkeypatch)
    answer = check_refusal(Answer(code, *capsys.readouterr()), ProjectError)
    assert "lab.toml: dataset and mine share files" in answer.err
    assert not home.exists()


@pytest.mark.parametrize(
    ("path", "whole"), [(".", "here"), ("..", "{}"), ("x/..", "here"), ("-x/", "here/-x")]
)
def test_the_path_of_a_dataset_ends_in_its_name(
    path: str, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "x").mkdir(parents=True)
    monkeypatch.chdir(here)
    found = config_from_options(dataset=Path(path)).dataset
    assert found == (tmp_path if whole == "{}" else tmp_path / whole)


def test_a_dataset_is_found_from_where_the_command_is_typed(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", "--dataset", "no/such.csv"), DatasetMissing)
    assert f"{KIT}/no/such.csv: there is no such file" in answer.err


# --- Ports --------------------------------------------------------------------------------------


def test_a_pinned_port_that_is_held(home: Path, listener: int) -> None:
    pinned = {"LAB_PORT_GITSERVER": str(listener)}
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", variables=pinned), PortError)
    assert f"port {listener} of gitserver is held by pid {os.getpid()} (" in answer.err
    assert "LAB_PORT_GITSERVER=NUMBER" in answer.err


def test_a_pinned_port_whose_companion_is_held(home: Path, listener: int) -> None:
    pinned = {"LAB_PORT_SEAWEEDFS": str(listener - seaweedfs.GRPC_OFFSET)}
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", variables=pinned), PortError)
    assert f"port {listener} of seaweedfs is held by pid {os.getpid()} (" in answer.err


def test_a_pinned_port_that_is_none(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(
            run_lab(home, "up", variables={"LAB_PORT_GITSERVER": "²²²²"}), LabError
        )
    assert "LAB_PORT_GITSERVER=²²²² is no port" in answer.err


def test_a_port_pinned_for_no_service(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", variables={"LAB_PORT_GIT": "12345"}), PortError)
    assert "LAB_PORT_GIT is of no service" in answer.err
    assert "LAB_PORT_GITSERVER" in answer.err


@pytest.mark.parametrize(
    "pins",
    [
        {"seaweedfs": 60_000},
        {"seaweedfs": 12_345, "gitserver": 22_345},
        {"airflow-api-server": 12_345, "gitserver": 12_345},
    ],
)
def test_pinned_ports_that_can_not_all_be_used(pins: dict[str, int], home: Path) -> None:
    with expecting_no_change(home), pytest.raises(PortError, match="twice, or does not exist"):
        embedded.check(Config(home=home, ports=pins))


# --- Homes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "below"), [("up", ""), ("status", "in"), ("down", "in/lab")])
def test_a_home_that_is_a_file_or_below_one(command: str, below: str, home: Path) -> None:
    home.touch()
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home / below, command), HomeError)
    assert str(home) in answer.err


@contextmanager
def folder_with_mode(folder: Path, mode: int) -> Iterator[Path]:
    """Create a folder that has this mode while the block runs."""
    folder.mkdir()
    folder.chmod(mode)
    try:
        yield folder
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(("command", "mode"), [("up", 0o500), ("doctor", 0o000), ("down", 0o000)])
def test_a_home_where_nobody_may_write(command: str, mode: int, home: Path) -> None:
    before = POWERLESS if os.geteuid() == 0 else ()
    if before and not shutil.which(before[0]):
        pytest.skip("root may write everywhere, and there is no setpriv to take that from it")
    with folder_with_mode(home, mode) as folder:
        answer = check_refusal(run_lab(folder / "lab", command, before=before), HomeError)
    assert "LAB_HOME=/path/to/folder" in answer.err
    assert not list(home.iterdir())


def test_a_home_of_another_user() -> None:
    need_another_user()
    with tempfile.TemporaryDirectory(prefix="lab-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        answer = run_lab(folder / "lab", "up", user=NOBODY)
        assert not list(folder.iterdir())
    check_refusal(answer, HomeError)
    assert f"{folder} can't be written" in answer.err


def need_another_user() -> None:
    """Skip unless this process can become another user, and that user can run the kit."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    try:
        command = [sys.executable, "-c", "import lab.__main__"]
        subprocess.run(command, cwd=KIT, user=NOBODY, check=True, capture_output=True, env={})
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"user {NOBODY} can't run this Python or read this checkout: {error}")


@pytest.mark.parametrize(
    ("words", "name"),
    [("up", "data"), ("status", "notes"), ("down", "notes"), ("down --purge", "data")],
)
def test_a_home_that_holds_other_files(words: str, name: str, home: Path) -> None:
    """A lab has a folder `data`, too, but that does not make every `data` a lab's."""
    (home / name).mkdir(parents=True)
    (home / name / "precious").write_text("keep me")
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, *words.split()), HomeError)
    assert f"{home} holds other files ({name}) and no lab" in answer.err


def test_a_home_with_a_name_that_airflow_can_not_bear(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home.with_name("what?"), "up"), HomeError)
    assert "holds one of ? % $ #" in answer.err


def test_a_home_of_nobody(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(
            run_lab(home, "down", variables={"LAB_HOME": "~no-such-person"}), HomeError
        )
    assert "LAB_HOME=~no-such-person leads nowhere" in answer.err


@contextmanager
def marked_process(home: Path) -> Iterator[psutil.Process]:
    """Run a process that carries a lab's mark."""
    marks = {processes.MARK: str(home), processes.NAME: "thing"}
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **marks}) as process:
        try:
            wait_until(lambda: expect_processes(home), what="the mark", timeout=20, interval=0.01)
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def expect_processes(home: Path) -> None:
    """Raise NotYet in the moment when a program has started but shows no environment yet."""
    if not list_pids(home):
        raise NotYet


@pytest.mark.parametrize("text", ['{"layout": 0, "ports": {}}', '{"layout": 1'])
def test_a_state_of_no_use_and_the_advice_to_remove_it(text: str, home: Path) -> None:
    config = create_home(home)
    (home / "state.json").write_text(text)
    (config.data / "seaweedfs").mkdir()
    with marked_process(home) as process:
        with expecting_no_change(home):
            answer = check_refusal(run_lab(home, "up"), HomeError)
            check_refusal(run_lab(home, "down"), HomeError)
        run_suggested_command(answer)
        assert process.wait(timeout=20) is not None
    assert not home.exists()


def run_suggested_command(answer: Answer) -> None:
    """Run what follows `try:` in a shell."""
    found = re.search(r"try: remove it with: (.*--purge), or choose another", answer.err)
    assert found, answer
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-c", found[1]], env={"PATH": path}, check=True, capture_output=True)


@pytest.mark.parametrize("words", ["up", "down --purge"])
def test_a_second_command_waits_for_nobody(words: str, home: Path) -> None:
    config = create_home(home)
    with state.exclusive_lock(config), expecting_no_change(home):
        answer = check_refusal(run_lab(home, *words.split()), BusyError)
    assert f"another lab command (pid {os.getpid()}) is changing {home}" in answer.err


# --- The machine --------------------------------------------------------------------------------


def test_a_machine_without_git(home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "up", variables={"PATH": str(PROGRAMS)}), MachineError)
    assert "there is no git" in answer.err


def test_a_full_disk(home: Path) -> None:
    home.mkdir()
    script = (
        'mount -t tmpfs -o size=1m none "$LAB_HOME" || exit 99; "$@"; code=$?; '
        'ls -A "$LAB_HOME"; exit $code'
    )
    answer = run_lab(home, "up", before=("unshare", "--mount", "sh", "-c", script, "sh"))
    if answer.code in {1, 99} and "error: " not in answer.err:
        pytest.skip(f"no small disk can be mounted here: {answer.err.strip()}")
    check_refusal(answer, DiskError)
    assert f"0.0 GiB free at {home}" in answer.err
    assert answer.out.splitlines()[-1].startswith("✗ Check this machine")  # `ls` showed nothing


def run_in_process(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this very process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["lab", *words])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def make_failing_function(number: int) -> Callable[..., NoReturn]:
    """Return a function that raises OSError with this number."""

    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number), "/some/file")

    return fail


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.ENOSPC, DiskError, "the disk is full: No space left on device (/some/file)"),
        (errno.EDQUOT, DiskError, "the disk is full: Disk quota exceeded (/some/file)"),
        (errno.EIO, LabError, "Input/output error (/some/file)"),
    ],
)
def test_a_failure_of_the_system(
    number: int,
    kind: type[LabError],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("lab.__main__.announce_backend", make_failing_function(number))
    code = run_in_process(["up"], monkeypatch)
    answer = check_refusal(Answer(code, *capsys.readouterr()), kind)
    assert answer.err.startswith(f"error: {told}\n")


def test_a_reader_that_has_gone_is_no_news(home: Path) -> None:
    """As in `lab logs | head`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lab", "doctor"]
    done = subprocess.run(
        command,
        cwd=KIT,
        env=environment(home, {}),
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


# --- Without a command --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "md5", "runs"),
    [
        ("datasets/a.csv", "0a", True),
        ("datasets/a.csv", "0a.dir", False),  # as Spark writes it
        ("datasets/a.bin", "0a", False),
    ],
)
def test_data_that_is_no_table_is_proved_and_not_run(
    path: str,
    md5: str,
    runs: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What runs and what proves has tests of its own; here it is told apart."""
    lab = build_lab(Path("/nowhere"), path)
    done: list[str] = []

    def verify(_: Lab) -> Proof:
        done.append("verify")
        return PROOF

    place = SimpleNamespace(start=lambda *_: lab, complete=lambda *_: done.append("complete"))
    monkeypatch.setattr("lab.__main__.announce_backend", lambda _: place)
    monkeypatch.setattr("lab.__main__.run_and_follow", lambda _, dag: done.append(dag))
    monkeypatch.setattr(Lab, "dataset", lambda _: Version("c0ffee", md5, 1, {}))
    monkeypatch.setattr(Lab, "verify", verify)
    assert run_in_process([], monkeypatch) == 0
    assert done == [*(["dataset_pipeline"] if runs else []), "verify", "complete"]
    line = f"not run: dataset_pipeline appends a record to a table, which {path} is not\n"
    assert (line in capsys.readouterr().out) is not runs


# --- No lab, or one that does not run -----------------------------------------------------------


@pytest.mark.parametrize("words", NEED_A_LAB, ids=" ".join)
def test_a_command_that_needs_a_lab_without_one(words: tuple[str, ...], home: Path) -> None:
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, *words), NotRunningError)
    assert f"there is no lab in {home}" in answer.err
    assert "try: lab up" in answer.err


@pytest.mark.parametrize("words", NEED_A_LAB[:4], ids=" ".join)
def test_a_command_that_needs_a_lab_that_runs(words: tuple[str, ...], home: Path) -> None:
    create_home(home)
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, *words), NotRunningError)
    assert "try: lab up starts" in answer.err


def test_logs_of_no_such_service(home: Path) -> None:
    create_home(home)
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "logs", "apache"), LabError)
    assert "there is no service 'apache'" in answer.err
    assert "gitserver" in answer.err


def test_another_dataset_or_database_than_the_labs(home: Path) -> None:
    create_home(home)
    (home.parent / "other.csv").write_text("a,b\n1,2\n")
    with expecting_no_change(home):
        with pytest.raises(LabError, match="made with --database sqlite, not postgresql"):
            choices.refuse_other_choices(Config(home, database="postgresql"), read_state(home))
        answer = check_refusal(
            run_lab(home, "up", "--dataset", home.parent / "other.csv"), LabError
        )
    assert "not datasets/other.csv" in answer.err


@pytest.mark.parametrize("words", ["down", "down --purge"])
def test_ending_no_lab_is_no_error_and_leaves_nothing(words: str, home: Path) -> None:
    with expecting_no_change(home):
        answer = run_lab(home, *words.split())
    assert (answer.code, answer.err) == (0, "")
    assert "0 processes ended" in answer.out


def test_ending_no_lab_in_an_empty_folder(home: Path) -> None:
    home.mkdir(mode=0o755)
    with expecting_no_change(home):
        assert run_lab(home, "down").code == 0
    assert run_lab(home, "down", "--purge").code == 0
    assert not home.exists()


def test_processes_of_a_home_that_was_removed_by_hand_are_ended(home: Path) -> None:
    with marked_process(home) as process:
        answer = run_lab(home, "down")
        assert process.wait(timeout=20) is not None
    assert "1 processes ended" in answer.out


# --- A lab of one service -----------------------------------------------------------------------


@pytest.fixture
def half(home: Path) -> Iterator[Config]:
    """Yield a lab of which only the git server runs."""
    config = create_home(home)
    site = find_site(config)
    service = gitserver.build_service(config, site.secrets, site.ports)
    processes.ensure_running(config, service)
    processes.wait_until_ready(config, service, 30)
    yield config
    processes.terminate_all(config)


def test_a_lab_of_which_a_part_runs(half: Config) -> None:
    """Its state is reported, it stays on its port, and any path to its home ends it."""
    before = read_state(half.home)
    with expecting_no_change(half.home):
        check_reports(half, before.ports["gitserver"])
        moved = run_lab(half.home, "up", variables={"LAB_PORT_GITSERVER": "12345"})
    check_refusal(moved, PortError)
    assert f"gitserver runs on port {before.ports['gitserver']}, not 12345" in moved.err
    link = half.home.with_name("link")
    link.symlink_to(half.home)
    answer = run_lab(link, "down")
    assert (answer.code, answer.err) == (0, "")
    assert f"1 processes ended; its data is in {half.home}" in answer.out
    assert read_state(half.home) == before
    assert not list_pids(half.home)


def check_reports(config: Config, port: int) -> None:
    """Check that status, doctor and logs tell what runs and what does not, and no secret."""
    status, doctor = (
        check_refusal(run_lab(config.home, w), NotRunningError) for w in ("status", "doctor")
    )
    assert re.search(rf"✓ gitserver +running +http://127.0.0.1:{port}\n", status.out)
    assert re.search(r"✗ seaweedfs +stopped", status.out)
    assert re.search(rf"port {port} +gitserver +a random password", doctor.out)
    assert "not running: seaweedfs, airflow-" in doctor.err
    logs = run_lab(config.home, "logs", "gitserver")
    assert logs.out.startswith(f"==> {config.logs}/gitserver.log\n")
    text = "".join(answer.out + answer.err for answer in (status, doctor, logs))
    assert not [name for name, value in Secrets(config).values.items() if value in text]


# --- Ctrl-C -------------------------------------------------------------------------------------


@contextmanager
def starting_lab(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `lab up` in a session of its own, with an open umask; yield it at its first phase."""
    with subprocess.Popen(
        [sys.executable, "-m", "lab", "up"],
        cwd=KIT,
        env=environment(home, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        umask=0,
    ) as up:
        assert up.stdout
        while "Check this machine" not in up.stdout.readline():
            assert up.poll() is None
        try:
            yield up
        finally:
            up.kill()


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_an_interrupted_up_is_removed_by_a_purge(seconds: float, home: Path) -> None:
    with starting_lab(home) as up:
        time.sleep(seconds)
        os.killpg(up.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        out, err = up.communicate(timeout=60)
    assert up.returncode == console.INTERRUPTED, (out, err)
    assert err.startswith("\ninterrupted: ")
    assert "Traceback" not in out + err
    assert not list_files_open_to_others(home)
    answer = run_lab(home, "down", "--purge")
    assert (answer.code, answer.err) == (0, "")
    assert f"{home} is removed" in answer.out
    assert not home.exists()
    assert not list_pids(home)


def list_files_open_to_others(home: Path) -> list[Path]:
    """List what others could read if the home itself were not closed to them."""
    paths = [home, *home.rglob("*")] if home.exists() else []
    return [p for p in paths if not p.is_symlink() and p.stat().st_mode & 0o077]


# --- Environment --------------------------------------------------------------------------------


def test_tracebacks_for_who_asks_for_them(home: Path) -> None:
    with expecting_no_change(home):
        answer = run_lab(home, "status", variables={"LAB_DEBUG": "1"})
        bad = run_lab(home, "up", variables={"LAB_DEBUG": "1", "LAB_PORT_GITSERVER": "http"})
    assert answer.code == NotRunningError.exit_code
    assert answer.err.startswith("Traceback (most recent call last):")
    assert "error: there is no lab" in answer.err
    assert bad.err.count("Traceback") == 1
    assert "error: LAB_PORT_GITSERVER=http is no port" in bad.err


@pytest.mark.parametrize(
    "variables",
    [
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_a_terminal_with_few_letters(variables: dict[str, str], home: Path) -> None:
    odd = home.with_name("höme of a lab")
    with expecting_no_change(home):
        answer = run_lab(odd, "doctor", variables=variables)
        check_refusal(run_lab(odd, "status", variables=variables), NotRunningError)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[1].startswith("ok python ")


def test_a_module_on_pythonpath_replaces_none_of_the_labs(home: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("yaml", "typer", "requests"):
        (foreign / f"{name}.py").write_text("raise SystemError('somebody else is imported')\n")
    answer = run_lab(home, "doctor", variables={"PYTHONPATH": f"{tmp_path}:{foreign}/"})
    assert (answer.code, answer.err) == (0, "")


def test_a_program_sees_nothing_of_what_is_for_others(home: Path, tmp_path: Path) -> None:
    """Neither AWS's settings nor Helm's nor Python's; all else is the person's own."""
    git, seen = tmp_path / "bin" / "git", tmp_path / "seen"
    git.parent.mkdir()
    git.write_text(f"#!/bin/sh\nenv > '{seen}'\nexec '{shutil.which('git')}' \"$@\"\n")
    git.chmod(0o755)
    path = f"{git.parent}{os.pathsep}{os.environ['PATH']}"
    foreign = ("AWS_PROFILE", "AWS_CA_BUNDLE", "BOTO_CONFIG", "HELM_DRIVER", "PYTHONSTARTUP")
    variables = {**dict.fromkeys(foreign, "x"), "PATH": path, "DOCKER_CONFIG": "/mine"}
    assert run_lab(home, "doctor", variables=variables).code == 0
    found = dict(line.split("=", 1) for line in seen.read_text().splitlines())
    assert found.items() >= NO_AWS.items()
    assert set(foreign).isdisjoint(found)
    assert (found["DOCKER_CONFIG"], found["PATH"]) == ("/mine", path)


def test_a_person_without_a_home_folder(home: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "LAB_HOME": str(home)}
    command = [sys.executable, "-m", "lab", "doctor"]
    with expecting_no_change(home):
        done = subprocess.run(command, cwd=KIT, env=bare, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_doctor_finds_everything_that_is_wrong(home: Path) -> None:
    bad = {"PATH": str(PROGRAMS), "LAB_HOME": str(home.with_name("what?"))}
    with expecting_no_change(home):
        answer = check_refusal(run_lab(home, "doctor", variables=bad), MachineError)
    assert "✗ git " in answer.out
    assert "✗ home " in answer.out
    assert answer.out.count("    try: ") == 2


# --- For programs and shells --------------------------------------------------------------------


def test_the_version_is_the_packages_and_needs_nothing(home: Path) -> None:
    bad = {"PATH": str(PROGRAMS), "LAB_DATABASE": "nonsense"}
    with expecting_no_change(home):
        answer = run_lab(home, "--version", variables=bad)
    assert answer == Answer(0, f"mlops-lab {metadata.version('mlops-lab')}\n", "")


@pytest.mark.parametrize("inside", [False, True], ids=["in a shell", "in a session of nox"])
def test_a_new_lab_says_what_can_be_typed_where_it_is_said(
    inside: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = "nox -s lab --" if inside else "lab"
    monkeypatch.delenv("NOX_CURRENT_SESSION", raising=False)
    if inside:
        monkeypatch.setenv("NOX_CURRENT_SESSION", "lab")
    values: dict[str, Any] = {field.name: f"the {field.name}" for field in fields(Access)}
    assert "lab run" not in next_steps(Lab(**values), TABLE_DAG)  # it is no table
    assert f"{lab} run mine" in next_steps(Lab(**values), "mine")
    values["dataset_path"] = "datasets/a.csv"
    shown = next_steps(Lab(**values), TABLE_DAG)
    assert f"({lab} open --show-password prints both passwords)" in shown
    tries = shown.partition("try ")[2].splitlines()
    assert [line.strip().removeprefix(f"{lab} ").split()[0] for line in tries] == [
        *("run", "verify", "status", "down")
    ]
    assert "password" not in shown.replace("--show-password prints both passwords", "")
    assert run_in_process(["--frobnicate"], monkeypatch) == console.USAGE
    assert f"try: {lab} --help" in capsys.readouterr().err
    monkeypatch.setattr("lab.__main__.announce_backend", interrupt)
    assert run_in_process(["up"], monkeypatch) == console.INTERRUPTED
    assert f"interrupted: {lab} status shows what runs" in capsys.readouterr().err


def interrupt(*_: object) -> NoReturn:
    """Raise what Ctrl-C does."""
    raise KeyboardInterrupt


def test_passwords_are_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_in_process(["open", "--show-password"], monkeypatch)
    answer = check_refusal(Answer(code, *capsys.readouterr()), LabError)
    assert "passwords are shown on a terminal only" in answer.err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("run dataset_pipeline", NotRunningError),
        ("run dataset_pipeline --conf [1]", ConfError),
        ("verify HEAD~1", NotRunningError),
        ("status", NotRunningError),
        ("env", NotRunningError),
        ("doctor --backend moon", BackendError),
        ("doctor --database oracle", LabError),
    ],
)
def test_a_program_is_answered_by_one_object_when_a_command_fails(
    words: str,
    kind: type[LabError],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_HOME", str(home))
    code = run_in_process([*words.split(), "--json"], monkeypatch)
    answer = check_refusal(Answer(code, *capsys.readouterr()), kind)
    found = json.loads(answer.out)
    assert found["ok"] is False
    assert answer.err.startswith(f"error: {found['error']}\n  try: {found['try']}\n")


def test_a_program_is_told_which_part_of_a_lab_runs(half: Config) -> None:
    status, doctor = (
        check_refusal(run_lab(half.home, word, "--json"), NotRunningError)
        for word in ("status", "doctor")
    )
    said, found = json.loads(status.out), json.loads(doctor.out)
    running = {service["name"]: service["running"] for service in said["services"]}
    assert [name for name, runs in running.items() if runs] == ["gitserver"]
    assert found["stopped"] == [name for name, runs in running.items() if not runs]
    port = read_state(half.home).ports["gitserver"]
    assert {"name": "gitserver", "running": True, "url": f"http://127.0.0.1:{port}"} in (
        said["services"]
    )
    assert port in [each["number"] for each in found["ports"]]
    assert {check["ok"] for check in found["checks"]} == {True}
    text = status.out + doctor.out
    assert not [name for name, value in Secrets(half).values.items() if value in text]


def test_bash_completes_what_can_be_typed(home: Path) -> None:
    """The shell that a person has after `lab --install-completion`."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    create_home(home)
    here = environment(home, {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"})
    run_bash("lab --install-completion; true", here)
    assert complete(here, "lab ") == [*COMMANDS]
    assert complete(here, "lab up --backend e") == ["embedded"]
    assert complete(here, "lab logs airflow-s") == ["airflow-scheduler"]
    assert complete(here, "lab run ") == []  # the lab does not run


def complete(env: Mapping[str, str], line: str) -> list[str]:
    """Return what bash offers at the end of a line, by the function that `lab` has installed."""
    words = line.split(" ")
    given = " ".join(f"'{word}'" for word in words)
    script = f"COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _lab_completion lab"
    return run_bash(f'. ~/.bashrc; {script}; echo "${{COMPREPLY[*]}}"', env).split()


def run_bash(script: str, env: Mapping[str, str]) -> str:
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout
