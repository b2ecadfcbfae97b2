"""The SSH endpoint: deploy keys, as git hosts have them, give read access to repositories.

A JSON file lists each repository's keys. It is read at each connection: a key that was removed
from it has no access from then on.

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
REFUSED = 128  # git's own exit code for a refusal
_COMMAND = re.compile(rf"git[ -]upload-pack '/?(?P<repository>{repositories.NAME})\.git'", re.ASCII)
_PROTOCOL = re.compile(r"[a-z0-9=:]{1,64}", re.ASCII)
_READABLE = "readable"  # the repositories that a connection's key may read


@dataclass(frozen=True)
class SshEndpoint:
    """The endpoint's port, and the files of its host key and of the deploy keys."""

    port: int
    host_key: Path
    deploy_keys: Path


def readable_repositories(key: str, deploy_keys: Path) -> frozenset[str]:
    """Return the repositories that list this public key; none if the file is missing or broken."""
    try:
        known = json.loads(deploy_keys.read_bytes())
        return frozenset(name for name, keys in known.items() if key in keys)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("no key is let in: %s: %s", deploy_keys, type(error).__name__)
        return frozenset()


class _DeployKeyServer(asyncssh.SSHServer):
    """One connection: authenticated by a deploy key of any repository, and in no other way."""

    def __init__(self, deploy_keys: Path) -> None:
        self._deploy_keys = deploy_keys
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # A client may offer several keys. The last one it offers is the one that it proves.
        text = " ".join(key.export_public_key().decode("ascii").split()[:2])
        readable = (
            readable_repositories(text, self._deploy_keys) if username == USER else frozenset()
        )
        if self._connection:
            self._connection.set_extra_info(**{_READABLE: readable})
        return bool(readable)


@asynccontextmanager
async def serving_ssh(root: Path, endpoint: SshEndpoint) -> AsyncIterator[None]:
    """Serve the repositories under the root by SSH during the block."""
    # A log line per connection would be one each second: Airflow polls for new commits.
    asyncssh.set_log_level(logging.WARNING)

    async def serve(client: asyncssh.SSHServerProcess[bytes]) -> None:
        await _serve_client(root, client)

    listener = await asyncssh.listen(
        "127.0.0.1",
        endpoint.port,
        server_factory=lambda: _DeployKeyServer(endpoint.deploy_keys),
        server_host_keys=[os.fspath(endpoint.host_key)],
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


async def _serve_client(root: Path, client: asyncssh.SSHServerProcess[bytes]) -> None:
    """Answer one command: `git upload-pack` of a repository that the key may read."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            client.exit(await _run_request(root, client))
    except TimeoutError:
        log.warning("%s: ended after %d s", client.command, REQUEST_TIMEOUT)
        client.close()


async def _run_request(root: Path, client: asyncssh.SSHServerProcess[bytes]) -> int:
    """Run the requested command and return its exit code."""
    repository = _parse_repository(client.command or "")
    if repository not in client.get_extra_info(_READABLE, ()):
        client.stderr.write(b"this key opens no such repository, or not for this\n")
        return REFUSED
    if not repositories.exists(root, repository):
        client.stderr.write(b"there is no such repository\n")
        return REFUSED
    return await _run_upload_pack(repositories.folder(root, repository), client)


def _parse_repository(command: str) -> str:
    """Return the repository that a `git upload-pack` command names; "" for any other command."""
    found = _COMMAND.fullmatch(command)
    return found["repository"] if found else ""


async def _run_upload_pack(repository: Path, client: asyncssh.SSHServerProcess[bytes]) -> int:
    """Run `git upload-pack` for the client and return its exit code."""
    environment = repositories.git_environment()
    protocol = client.env.get("GIT_PROTOCOL", "")
    if _PROTOCOL.fullmatch(protocol):
        environment["GIT_PROTOCOL"] = protocol
    async with _upload_pack_process(repository, environment) as git:
        with suppress(asyncssh.Error, OSError):  # the client has gone away
            await _relay_both_ways(git, client)
            return await git.wait()
        return REFUSED


async def _relay_both_ways(git: Process, client: asyncssh.SSHServerProcess[bytes]) -> None:
    """Relay between git and the client until git has closed its output."""
    stdout, stderr = cast("StreamReader", git.stdout), cast("StreamReader", git.stderr)
    feeding = asyncio.create_task(_feed_request(client.stdin, cast("StreamWriter", git.stdin)))
    try:
        await asyncio.gather(_copy(stdout, client.stdout), _copy(stderr, client.stderr))
    finally:
        feeding.cancel()


async def _feed_request(client: asyncssh.SSHReader[bytes], stdin: StreamWriter) -> None:
    """Copy the client's input to git, which may exit before the end of it."""
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
async def _upload_pack_process(
    repository: Path, environment: dict[str, str]
) -> AsyncIterator[Process]:
    """Start `git upload-pack`, yield it, and kill it with all its children unless it has exited."""
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
