"""What `.lab/` remembers: its layout, the lab's choices, its ports and its secrets."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from lab.config import Config
from lab.errors import BusyError, HomeError, NotRunningError
from lab.files import make_private, write_private

LAYOUT = 1  # raised with each change that an older `.lab/` can't be read with
OWN = {"logs", "data", "secrets", "run", "shared", "lock", "state.json", "state.json.part", "nox"}


@dataclass(frozen=True)
class State:
    """The choices that a lab was made with; a later `up` keeps them."""

    backend: str
    database: str
    dataset_path: str
    dataset_source: str | None  # the CSV a person brought; None for the generated one
    ports: Mapping[str, int]
    layout: int = LAYOUT


def read(config: Config) -> State | None:
    """The lab's state, or None where there is none. Raises HomeError for another layout."""
    text = text_of(config)
    if text is None:
        refuse_foreign_folder(config)
        return None
    try:
        return parsed(text)
    except ValueError as error:
        raise HomeError(
            f"{config.home}/state.json is of no use: {error}",
            f"{purge(config)}, or choose another LAB_HOME",
        ) from error


def known(config: Config) -> State:
    """The state of the lab that is there, running or not. Raises NotRunningError without one."""
    found = read(config)
    if found is None:
        raise NotRunningError(f"there is no lab in {config.home}", "lab up makes one")
    return found


def settled(config: Config, first: Callable[[Config], State]) -> State:
    """The lab's choices, on the disk: those of an earlier `up`, or `first`; pinned ports count."""
    found = read(config) or first(config)
    found = with_ports(found, {**found.ports, **config.ports})
    write(config, found)
    return found


def readable(config: Config) -> State | None:
    """The lab's state, or None where there is none of this layout: removing a lab needs none.

    Raises HomeError when the home is a folder that holds something else than a lab.
    """
    with suppress(ValueError):
        if text := text_of(config):
            return parsed(text)
    refuse_foreign_folder(config)
    return None


def text_of(config: Config) -> bytes | None:
    """What `state.json` holds, or None where there is none. Raises HomeError."""
    try:
        return (config.home / "state.json").read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(
            f"{config.home} can't be read: {error.strerror}",
            "choose a folder of your own: LAB_HOME=/path/to/folder",
        ) from error


def parsed(text: bytes) -> State:
    """The state that `text` is. Raises ValueError when it is none of this layout."""
    found = json.loads(text)
    layout = found.get("layout") if isinstance(found, dict) else None
    if layout != LAYOUT:
        raise ValueError(f"it has layout {layout}, this version knows layout {LAYOUT}")
    try:
        return State(**found)
    except TypeError as error:
        raise ValueError(str(error)) from error


def refuse_foreign_folder(config: Config) -> None:
    """Raises HomeError when the home is a folder that holds something else than a lab.

    The lock is the first file of a lab and the last. Without it, even folders of a lab's names are
    somebody else's: `down --purge` must not remove any `data`.
    """
    names = {path.name for path in config.home.iterdir()} if config.home.is_dir() else set()
    foreign = names - OWN if "lock" in names else names - {"nox"}
    if foreign and not {"lock", "state.json"} <= names:
        raise HomeError(
            f"{config.home} holds other files ({', '.join(sorted(foreign)[:3])}) and no lab",
            "choose an empty folder as LAB_HOME",
        )


def purge(config: Config) -> str:
    return f"remove it with: LAB_HOME={shlex.quote(str(config.home))} lab down --purge"


def write(config: Config, state: State) -> None:
    """The state is on the disk, whole."""
    write_private(config.home / "state.json", json.dumps(asdict(state), indent=1))


def make_home(config: Config) -> None:
    """`.lab/` and its folders are there, for their owner only. Raises HomeError."""
    inner = (config.logs, config.data, config.secrets, config.run, config.shared)
    try:
        make_private(config.home)
        (config.home / "lock").touch(mode=0o600)  # before all else: it says whose folder this is
        for folder in inner:
            make_private(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise HomeError(
            f"{config.home} can't be written: {error.strerror}",
            "choose a folder of your own: LAB_HOME=/path/to/folder",
        ) from error


def remove(config: Config) -> None:
    """There is no home. What says whose folder it is goes last: a removal may be cut off."""
    last = [config.home / "state.json", config.home / "lock"]
    for path in [*(set(config.home.glob("*")) - set(last)), *last]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if config.home.exists():
        config.home.rmdir()


@contextmanager
def exclusive(config: Config) -> Iterator[None]:
    """No other command changes this lab meanwhile. Raises BusyError when one does."""
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


def with_ports(state: State, ports: Mapping[str, int]) -> State:
    return replace(state, ports=dict(ports))
