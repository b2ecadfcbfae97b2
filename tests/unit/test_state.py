"""The files in `.lab/` survive kills, and nobody else can read them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from lab import files
from lab.config import KIT, Config
from lab.errors import BusyError, HomeError
from lab.home import state
from lab.home.secrets import Secrets
from lab.home.state import State

SOME = State("embedded", "sqlite", "datasets/a.csv", None, {"gitserver": 12345})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "lab")


@pytest.fixture
def made(config: Config) -> Config:
    state.make_home(config)
    return config


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def start_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a process that runs `code`, with pipes for its input and output."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=KIT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def read_modes(folder: Path) -> dict[str, int]:
    paths = [folder, *folder.rglob("*")]
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths}


# --- The state ----------------------------------------------------------------------------------


def test_there_is_no_state_before_the_first_lab(config: Config) -> None:
    assert state.read_state(config) is None
    assert not config.home.exists()


def test_a_state_is_read_as_it_was_written(made: Config) -> None:
    state.write_state(made, SOME)
    assert state.read_state(made) == state.try_read_state(made) == SOME


def test_a_state_gets_other_ports() -> None:
    other = state.with_ports(SOME, {"gitserver": 23456})
    assert other.ports == {"gitserver": 23456}
    assert asdict(other) == {**asdict(SOME), "ports": other.ports}


@pytest.mark.parametrize(
    "text",
    [
        '{"layout": 0}',
        '{"layout": 2, "backend": "embedded"}',
        "{}",
        '{"layout": 1}',
        '{"layout": 1, "colour": "red"}',
        "[]",
        "null",
        '"layout"',
        '{"layout": 1',
        "",
        "\xff",
    ],
)
def test_a_state_of_no_use_is_refused_with_what_removes_it(text: str, made: Config) -> None:
    (made.home / "state.json").write_text(text, "latin-1")
    with pytest.raises(HomeError) as caught:
        state.read_state(made)
    assert f"{made.home}/state.json is of no use" in caught.value.what
    assert f"LAB_HOME={made.home} lab down --purge" in caught.value.fix
    assert state.try_read_state(made) is None


def test_the_advice_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    advice = state.purge_hint(Config(home=tmp_path / "my lab's home"))
    assignment = advice.removeprefix("remove it with: ").removesuffix(" lab down --purge")
    script = f'{assignment}; printf %s "$LAB_HOME"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == str(tmp_path / "my lab's home")


@pytest.mark.parametrize("path", ["lab", "lab/inner"])
def test_a_home_that_is_a_file_or_below_one_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "lab").touch()
    with pytest.raises(HomeError, match="can't be read: Not a directory"):
        state.read_state(Config(home=tmp_path / path))


# --- Whose folder it is -------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[], ["nox"], ["lock"], ["lock", "logs", "state.json.part"]])
def test_what_an_interrupted_command_leaves_is_a_labs(names: list[str], config: Config) -> None:
    config.home.mkdir()
    for name in names:
        (config.home / name).touch()
    assert state.read_state(config) is None
    assert state.try_read_state(config) is None


@pytest.mark.parametrize("names", [["notes"], ["data"], ["logs", "run"], ["lock", "Cargo.toml"]])
def test_a_folder_of_somebody_else_is_refused(names: list[str], config: Config) -> None:
    config.home.mkdir()
    for name in names:
        (config.home / name).touch()
    for ask in (state.read_state, state.try_read_state):
        with pytest.raises(HomeError, match="holds other files") as caught:
            ask(config)
        assert "empty folder" in caught.value.fix


def test_a_state_without_a_lock_is_somebody_elses_unless_it_is_ours(config: Config) -> None:
    config.home.mkdir()
    (config.home / "state.json").write_text('{"tool": "another"}')
    with pytest.raises(HomeError, match="holds other files"):
        state.try_read_state(config)
    state.write_state(config, SOME)
    assert state.try_read_state(config) == SOME


def test_a_file_that_a_person_put_beside_a_lab_does_no_harm(made: Config) -> None:
    state.write_state(made, SOME)
    (made.home / "notes").touch()
    assert state.read_state(made) == SOME
    state.remove_home(made)
    assert not made.home.exists()


def test_removing_follows_no_link(made: Config, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (made.home / "link").symlink_to(tmp_path / "precious")
    state.remove_home(made)
    assert not made.home.exists()
    assert (tmp_path / "precious" / "file").exists()


def test_removing_nothing_is_no_error(config: Config) -> None:
    state.remove_home(config)


def test_a_removal_that_was_cut_off_can_be_repeated(made: Config) -> None:
    state.write_state(made, SOME)
    code = """if True:
        import os, shutil, sys
        from pathlib import Path
        from lab.home import state
        from lab.config import Config
        one, left = shutil.rmtree, [3]
        def rmtree(path):
            left[0] -= 1
            one(path) if left[0] else os.kill(os.getpid(), 9)
        shutil.rmtree = rmtree
        state.remove_home(Config(home=Path(sys.argv[1])))
    """
    assert start_python(code, made.home).wait() == -9
    assert len(list(made.home.iterdir())) == 2 + 3
    assert state.try_read_state(made) == SOME
    state.remove_home(made)
    assert not made.home.exists()


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_may_read_anything_even_with_an_open_umask(config: Config) -> None:
    state.make_home(config)
    state.write_state(config, SOME)
    Secrets(config).get("password")
    files = {"lock", "state.json", "secrets.json"}
    found = read_modes(config.home)
    assert {name for name, mode in found.items() if mode == 0o600} == files
    assert {mode for name, mode in found.items() if name not in files} == {0o700}


def test_a_home_that_was_open_is_closed(config: Config) -> None:
    for folder in (config.home, config.secrets):
        folder.mkdir()
        folder.chmod(0o755)
    state.make_home(config)
    assert read_modes(config.home)["secrets"] == read_modes(config.home)["lab"] == 0o700


def test_a_home_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    config = Config(home=tmp_path / "a" / "b" / "lab")
    state.make_home(config)
    assert config.secrets.is_dir()


def test_a_home_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="can't be written: Not a directory"):
        state.make_home(Config(home=tmp_path / "file" / "lab"))
    with pytest.raises(HomeError, match="can't be written: File exists"):
        state.make_home(Config(home=tmp_path / "file"))


def test_a_private_file_is_replaced_with_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    files.write_private_file(path, "größer")
    assert path.read_text("utf-8") == "größer"
    assert read_modes(tmp_path)["file"] == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_kill_before_the_rename_leaves_the_old_file(call: str, made: Config) -> None:
    state.write_state(made, SOME)
    code = f"""if True:
        import os, sys
        from pathlib import Path
        from lab import files
        kill = lambda *_: os.kill(os.getpid(), 9)
        os.fsync, Path.replace = (kill, Path.replace) if "{call}" == "fsync" else (os.fsync, kill)
        files.write_private_file(Path(sys.argv[1]), "half")
    """
    assert start_python(code, made.home / "state.json").wait() == -9
    assert (made.home / "state.json.part").exists()
    assert state.read_state(made) == SOME
    state.write_state(made, state.with_ports(SOME, {}))
    assert state.read_state(made) == state.with_ports(SOME, {})
    assert not (made.home / "state.json.part").exists()


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "file.part").symlink_to("theirs")
    files.write_private_file(tmp_path / "file", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "ours"


# --- One command at a time ----------------------------------------------------------------------

HOLD = """if True:
    import sys
    from pathlib import Path
    from lab.home import state
    from lab.config import Config
    with state.exclusive_lock(Config(home=Path(sys.argv[1]))):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_second_command_is_refused_and_told_by_whom(config: Config) -> None:
    holder = start_python(HOLD, config.home)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=rf"\(pid {holder.pid}\) is changing {config.home}"):
        state.exclusive_lock(config).__enter__()
    holder.communicate()
    with state.exclusive_lock(config):
        assert (config.home / "lock").read_text() == str(os.getpid())


def test_a_killed_command_holds_nothing(config: Config) -> None:
    holder = start_python(HOLD, config.home)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with state.exclusive_lock(config):
        pass


def test_the_lock_is_free_after_an_error(config: Config) -> None:
    with pytest.raises(OSError, match="it broke"), state.exclusive_lock(config):
        raise OSError("it broke")
    with state.exclusive_lock(config):
        pass


def test_two_labs_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with (
        state.exclusive_lock(Config(home=tmp_path / "a")),
        state.exclusive_lock(Config(home=tmp_path / "b")),
    ):
        pass


def test_a_full_disk_keeps_nobody_from_removing_a_lab(made: Config) -> None:
    code = """if True:
        import resource, sys
        from pathlib import Path
        from lab.home import state
        from lab.config import Config
        config = Config(home=Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # each write fails from now on
        with state.exclusive_lock(config):
            state.remove_home(config)
    """
    assert start_python(code, made.home).wait() == 0
    assert not made.home.exists()


# --- Secrets ------------------------------------------------------------------------------------


def test_a_secret_stays_what_it_is(made: Config) -> None:
    secrets = Secrets(made)
    value = secrets.get("password")
    assert secrets.get("password") == value == Secrets(made).get("password")
    assert secrets.get("other") != value
    assert Secrets(made).get("password") == value


def test_a_secret_has_as_many_random_bytes_as_asked_for(made: Config) -> None:
    values = [Secrets(made).get(str(number), 48) for number in range(20)]
    assert {len(value) for value in values} == {64}  # base64: 6 bits a character
    assert len(set(values)) == 20


def test_no_secret_is_written_before_one_is_asked_for(made: Config) -> None:
    assert Secrets(made).values == {}
    assert not list(made.secrets.iterdir())


def test_threads_that_ask_at_once_get_one_value(made: Config) -> None:
    secrets = Secrets(made)
    names = [f"secret-{number % 5}" for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        values = list(pool.map(secrets.get, names))
    assert len(set(values)) == 5
    assert dict(zip(names, values, strict=True)) == secrets.values == Secrets(made).values


def test_commands_that_ask_at_once_get_one_value(made: Config) -> None:
    """`lab status` may run beside `lab up`: neither may lose a value that the other one made."""
    code = """if True:
        import json, sys
        from pathlib import Path
        from lab.config import Config
        from lab.home.secrets import Secrets
        secrets = Secrets(Config(home=Path(sys.argv[1])))
        print(flush=True)
        sys.stdin.readline()
        print(json.dumps({n: secrets.get(n) for n in sys.argv[2:]}))
    """
    own = [[f"{number}-{n}" for n in range(20)] for number in range(3)]
    processes = [start_python(code, made.home, "shared", *names, "shared-too") for names in own]
    for process in processes:
        assert process.stdout and process.stdin and process.stdout.readline()
    for process in processes:
        print(file=process.stdin, flush=True)
    said = [json.loads(process.communicate()[0]) for process in processes]
    kept = Secrets(made).values
    assert len(kept) == 3 * 20 + 2
    assert all(kept[name] == value for values in said for name, value in values.items())


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_unreadable_secrets_are_refused_not_replaced(text: str, made: Config) -> None:
    path = made.secrets / "secrets.json"
    path.write_text(text)
    with pytest.raises(HomeError, match="is unreadable") as caught:
        Secrets(made)
    assert "lab down --purge" in caught.value.fix
    assert path.read_text() == text
