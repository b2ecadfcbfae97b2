"""The SSH door: a key opens the repositories that name it, for reading and nothing else.

A deploy key, as git hosts have it. Which key opens what is in a JSON file, which is read at each
connection: a key that was taken out of it opens nothing from then on.

    {"lab/team-a": ["ssh-ed25519 AAAA…"]}
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import asyncssh

from lab.backends.embedded.gitserver import repositories
from lab.delivery.ssh import USER

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

log = logging.getLogger(__name__)

LOGIN_TIMEOUT = 20.0  # seconds
REQUEST_TIMEOUT = 300.0  # seconds, after which git is killed and the connection closed
_CHUNK = 64 * 1024  # bytes
REFUSED = 128  # the code with which git itself ends when it refuses
_COMMAND = re.compile(rf"git[ -]upload-pack '/?(?P<repository>{repositories.NAME})\.git'", re.ASCII)
_PROTOCOL = re.compile(r"[a-z0-9=:]{1,64}", re.ASCII)
_READABLE = "readable"  # what a connection's key opens


@dataclass(frozen=True)
class Door:
    """Where the door is, and the files that say who it is and whom it lets in."""

    port: int
    host_key: Path
    deploy_keys: Path


def opened_by(key: str, deploy_keys: Path) -> frozenset[str]:
    """The repositories that name this public key; none when the file is missing or broken."""
    try:
        known = json.loads(deploy_keys.read_bytes())
        return frozenset(name for name, keys in known.items() if key in keys)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("no key is let in: %s: %s", deploy_keys, type(error).__name__)
        return frozenset()


class _Guest(asyncssh.SSHServer):
    """Whoever is at the door: let in with a key that opens something, and in no other way."""

    def __init__(self, deploy_keys: Path) -> None:
        self._deploy_keys = deploy_keys
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # A client may ask about several keys. The last one asked about is the one that it proves.
        text = " ".join(key.export_public_key().decode("ascii").split()[:2])
        readable = opened_by(text, self._deploy_keys) if username == USER else frozenset()
        if self._connection:
            self._connection.set_extra_info(**{_READABLE: readable})
        return bool(readable)


@asynccontextmanager
async def serving(root: Path, door: Door) -> AsyncIterator[None]:
    """Within it, the door serves the repositories under the root."""
    # A line per connection would be one each second: Airflow looks whether something is new.
    asyncssh.set_log_level(logging.WARNING)

    async def serve(client: asyncssh.SSHServerProcess[bytes]) -> None:
        await _serve(root, client)

    listener = await asyncssh.listen(
        "127.0.0.1",
        door.port,
        server_factory=lambda: _Guest(door.deploy_keys),
        server_host_keys=[os.fspath(door.host_key)],
        process_factory=serve,
        encoding=None,
        allow_pty=False,
        agent_forwarding=False,
        login_timeout=LOGIN_TIMEOUT,
    )
    try:
        yield
    finally:
        listener.close()


async def _serve(root: Path, client: asyncssh.SSHServerProcess[bytes]) -> None:
    """Answers one command: git's reading of a repository that the key opens."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            client.exit(await _answer(root, client))
    except TimeoutError:
        log.warning("%s: ended after %d s", client.command, REQUEST_TIMEOUT)
        client.close()


async def _answer(root: Path, client: asyncssh.SSHServerProcess[bytes]) -> int:
    """The exit code of what was asked for."""
    repository = _requested(client.command or "")
    if repository not in client.get_extra_info(_READABLE, ()):
        client.stderr.write(b"this key opens no such repository, or not for this\n")
        return REFUSED
    if not repositories.exists(root, repository):
        client.stderr.write(b"there is no such repository\n")
        return REFUSED
    return await _read(repositories.folder(root, repository), client)


def _requested(command: str) -> str:
    """The repository that a command reads, or nothing where it is no such command."""
    found = _COMMAND.fullmatch(command)
    return found["repository"] if found else ""


async def _read(repository: Path, client: asyncssh.SSHServerProcess[bytes]) -> int:
    """The exit code of `git upload-pack`, which has talked to the client."""
    environment = repositories.git_environment()
    protocol = client.env.get("GIT_PROTOCOL", "")
    if _PROTOCOL.fullmatch(protocol):
        environment["GIT_PROTOCOL"] = protocol
    async with _upload_pack(repository, environment) as git:
        with suppress(asyncssh.Error, OSError):  # the client has gone away
            await _converse(git, client)
            return await git.wait()
        return REFUSED


async def _converse(git: Process, client: asyncssh.SSHServerProcess[bytes]) -> None:
    """Git and the client have told each other everything."""
    stdout, stderr = cast("StreamReader", git.stdout), cast("StreamReader", git.stderr)
    feeding = asyncio.create_task(_feed(client.stdin, cast("StreamWriter", git.stdin)))
    try:
        await asyncio.gather(_copy(stdout, client.stdout), _copy(stderr, client.stderr))
    finally:
        feeding.cancel()


async def _feed(client: asyncssh.SSHReader[bytes], stdin: StreamWriter) -> None:
    """Hands git what the client says; git may have ended before the end of it."""
    with suppress(asyncssh.Error, OSError):
        await _copy(client, stdin)
    stdin.close()


async def _copy(
    source: StreamReader | asyncssh.SSHReader[bytes],
    target: StreamWriter | asyncssh.SSHWriter[bytes],
) -> None:
    while chunk := await source.read(_CHUNK):
        target.write(chunk)
        await target.drain()


@asynccontextmanager
async def _upload_pack(repository: Path, environment: dict[str, str]) -> AsyncIterator[Process]:
    """A running `git upload-pack`; afterwards neither it nor any of its children lives."""
    git = await asyncio.create_subprocess_exec(
        *("git", "upload-pack", "--strict", os.fspath(repository)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        yield git
    finally:
        if git.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(git.pid, signal.SIGKILL)
            await git.communicate()
