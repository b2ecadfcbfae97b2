"""What `.lab/` remembers: its layout, the lab's choices, its ports and its secrets."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab.config import Config
from lab.errors import BusyError, HomeError

LAYOUT = 1  # raised with each change that an older `.lab/` can't be read with


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
    try:
        found: dict[str, Any] = json.loads((config.home / "state.json").read_text("utf-8"))
    except FileNotFoundError:
        refuse_foreign_folder(config)
        return None
    except (ValueError, OSError) as error:
        raise HomeError(
            f"{config.home}/state.json is unreadable: {error}", purge(config)
        ) from error
    if found.get("layout") != LAYOUT:
        raise HomeError(
            f"{config.home} has layout {found.get('layout')}, this version knows layout {LAYOUT}",
            f"{purge(config)}, or choose another LAB_HOME",
        )
    return State(**found)


def refuse_foreign_folder(config: Config) -> None:
    """Raises HomeError when the home is a folder that holds something else."""
    if not config.home.is_dir():
        return
    known = {"logs", "data", "secrets", "run", "shared", "lock", "nox"}
    foreign = [p.name for p in config.home.iterdir() if p.name.removesuffix(".part") not in known]
    if foreign and foreign != ["state.json.part"]:
        raise HomeError(
            f"{config.home} holds other files ({', '.join(sorted(foreign)[:3])}) and no lab",
            "choose an empty folder as LAB_HOME",
        )


def purge(config: Config) -> str:
    return f"remove it with: LAB_HOME={config.home} lab down --purge"


def write(config: Config, state: State) -> None:
    """The state is on the disk, whole."""
    write_private(config.home / "state.json", json.dumps(asdict(state), indent=1))


def write_private(path: Path, text: str) -> None:
    """`path` holds `text`, readable by its owner only; at no moment does it hold a part of it."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def make_home(config: Config) -> None:
    """`.lab/` and its folders are there, for their owner only. Raises HomeError."""
    try:
        for folder in (
            config.home,
            config.logs,
            config.data,
            config.secrets,
            config.run,
            config.shared,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        (config.home / "lock").touch()
    except OSError as error:
        raise HomeError(
            f"{config.home} can't be written: {error.strerror}",
            "choose a folder of your own: LAB_HOME=/path/to/folder",
        ) from error


@contextmanager
def exclusive(config: Config) -> Iterator[None]:
    """No other command changes this lab meanwhile. Raises BusyError when one does."""
    make_home(config)
    with (config.home / "lock").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another lab command (pid {file.read().strip()}) is changing {config.home}",
                "wait until it has ended, or end it",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Secrets:
    """Random secrets, made when first asked for, kept in one file of mode 0600."""

    def __init__(self, config: Config) -> None:
        self.path = config.secrets / "secrets.json"
        self.lock = threading.Lock()
        try:
            self.values: dict[str, str] = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            self.values = {}
        except ValueError as error:
            raise HomeError(f"{self.path} is unreadable: {error}", purge(config)) from error

    def get(self, name: str, length: int = 24) -> str:
        """The secret `name`, of `length` random bytes, the same at each call from now on."""
        with self.lock:
            if name not in self.values:
                self.values[name] = secrets.token_urlsafe(length)
                write_private(self.path, json.dumps(self.values, indent=1))
            return self.values[name]


def with_ports(state: State, ports: Mapping[str, int]) -> State:
    return replace(state, ports=dict(ports))
