"""What `.lab/` remembers: its layout, the lab's choices and ports; and the lock of a command."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace

from lab.config import Config
from lab.errors import BusyError, HomeError, NotRunningError
from lab.files import make_private_folder, write_private_file

LAYOUT = 1  # raised when this version can't read an older `.lab/`
# The files and folders that `.lab/` may have.
NAMES = {"logs", "data", "secrets", "run", "shared", "lock", "state.json", "state.json.part", "nox"}


@dataclass(frozen=True)
class State:
    """The choices that a lab was made with; a later `up` keeps them."""

    backend: str
    database: str
    dataset_path: str
    dataset_source: str | None  # the user's file or directory; None for the generated one
    ports: Mapping[str, int]
    layout: int = LAYOUT


def read_state(config: Config) -> State | None:
    """Return the lab's state, or None where there is none. Raises HomeError for another layout."""
    text = read_state_file(config)
    if text is None:
        refuse_foreign_folder(config)
        return None
    try:
        return parse_state(text)
    except ValueError as error:
        raise HomeError(
            f"{config.home}/state.json is of no use: {error}",
            f"{purge_hint(config)}, or choose another LAB_HOME",
        ) from error


def require_state(config: Config) -> State:
    """Return the state of the lab, running or not. Raises NotRunningError where there is none."""
    found = read_state(config)
    if found is None:
        raise NotRunningError(f"there is no lab in {config.home}", "lab up makes one")
    return found


def ensure_state(config: Config, first: Callable[[Config], State]) -> State:
    """Write and return the lab's choices: an earlier `up`'s, or `first`, with the pinned ports."""
    found = read_state(config) or first(config)
    found = with_ports(found, {**found.ports, **config.ports})
    write_state(config, found)
    return found


def try_read_state(config: Config) -> State | None:
    """Return the lab's state, or None where there is none of this layout: a removal needs none.

    Raises HomeError when the home is a folder that holds something else than a lab.
    """
    with suppress(ValueError):
        if text := read_state_file(config):
            return parse_state(text)
    refuse_foreign_folder(config)
    return None


def read_state_file(config: Config) -> bytes | None:
    """Return the bytes of `state.json`, or None where there is none. Raises HomeError."""
    try:
        return (config.home / "state.json").read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(
            f"{config.home} can't be read: {error.strerror}",
            "choose a folder of your own: LAB_HOME=/path/to/folder",
        ) from error


def parse_state(text: bytes) -> State:
    """Parse a state. Raises ValueError when it is none of this layout."""
    found = json.loads(text)
    layout = found.get("layout") if isinstance(found, dict) else None
    if layout != LAYOUT:
        raise ValueError(f"it has layout {layout}, this version knows layout {LAYOUT}")
    try:
        return State(**found)
    except TypeError as error:
        raise ValueError(str(error)) from error


def refuse_foreign_folder(config: Config) -> None:
    """Raise HomeError when the home is a folder that holds something else than a lab.

    The lock is the first file of a lab and the last. Without it, even folders with a lab's names
    are somebody else's: `down --purge` must not remove any `data`.
    """
    names = {path.name for path in config.home.iterdir()} if config.home.is_dir() else set()
    foreign = names - NAMES if "lock" in names else names - {"nox"}
    if foreign and not {"lock", "state.json"} <= names:
        raise HomeError(
            f"{config.home} holds other files ({', '.join(sorted(foreign)[:3])}) and no lab",
            "choose an empty folder as LAB_HOME",
        )


def purge_hint(config: Config) -> str:
    return f"remove it with: LAB_HOME={shlex.quote(str(config.home))} lab down --purge"


def write_state(config: Config, state: State) -> None:
    """Write the state to the disk, atomically."""
    write_private_file(config.home / "state.json", json.dumps(asdict(state), indent=1))


def make_home(config: Config) -> None:
    """Create `.lab/` and its folders unless they exist, for their owner only. Raises HomeError."""
    inner = (config.logs, config.data, config.secrets, config.run, config.shared)
    try:
        make_private_folder(config.home)
        (config.home / "lock").touch(mode=0o600)  # first of all: it marks the folder as a lab's
        for folder in inner:
            make_private_folder(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise HomeError(
            f"{config.home} can't be written: {error.strerror}",
            "choose a folder of your own: LAB_HOME=/path/to/folder",
        ) from error


def remove_home(config: Config) -> None:
    """Delete the home if it exists. The files that mark it go last: a removal may be cut off."""
    last = [config.home / "state.json", config.home / "lock"]
    for path in [*(set(config.home.glob("*")) - set(last)), *last]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if config.home.exists():
        config.home.rmdir()


@contextmanager
def exclusive_lock(config: Config) -> Iterator[None]:
    """Keep other commands from changing this lab meanwhile. Raises BusyError when one does."""
    make_home(config)
    with (config.home / "lock").open("r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another lab command (pid {file.read().decode()}) is changing {config.home}",
                "wait until it has ended, or end it",
            ) from None
        with suppress(OSError):  # a full disk must not keep anybody from removing a lab
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def lock_if_made(config: Config) -> AbstractContextManager[None]:
    """Hold the lock as `exclusive_lock` does, where there is one: a removal makes no home."""
    return exclusive_lock(config) if (config.home / "lock").exists() else nullcontext()


def with_ports(state: State, ports: Mapping[str, int]) -> State:
    return replace(state, ports=dict(ports))
