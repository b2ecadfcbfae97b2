"""Git's smart HTTP protocol: `git http-backend`, a CGI program, behind a thin ASGI adapter.

It is raw ASGI because request and response bodies are streamed at the same time, neither of them
held in memory: Starlette's streaming response would read the request's messages itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.exceptions import HTTPException

from lab.backends.embedded.gitserver import repositories
from lab.backends.embedded.gitserver.accounts import Accounts, Refusal
from lab.backends.embedded.gitserver.pushes import Busy, PushQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

REQUEST_TIMEOUT = 300.0  # seconds, after which git is killed and the connection closed
CHALLENGE = {"WWW-Authenticate": 'Basic realm="lab"'}
_CHUNK = 64 * 1024  # bytes

_PATH = re.compile(
    rf"/(?P<repository>{repositories.NAME})\.git"
    r"/(?P<action>info/refs|git-upload-pack|git-receive-pack)",
    re.ASCII,
)
_ADVERTISED = {
    b"service=git-upload-pack": "git-upload-pack",
    b"service=git-receive-pack": "git-receive-pack",
}
# The headers that git gets, by CGI variable, and their allowed values. CONTENT_LENGTH is left out,
# so that git reads to the end of its input: a body shorter than its length, as a killed server
# leaves it, makes http-backend (seen with git 2.39) spin forever at its end.
_PASSED_ON = {
    "CONTENT_TYPE": (b"content-type", re.compile(r"application/x-git-[a-z-]+-request")),
    "HTTP_CONTENT_ENCODING": (b"content-encoding", re.compile(r"(x-)?gzip")),
    "GIT_PROTOCOL": (b"git-protocol", re.compile(r"[a-z0-9=:]{1,64}", re.ASCII)),
}


@dataclass(frozen=True)
class Call:
    """A request to git: for a service of one repository, or for that service's references."""

    repository: str
    service: str
    method: str
    path: str
    query: str

    @property
    def needs_write(self) -> bool:
        """Whether the call is part of a push, which needs the right to write."""
        return self.service == "git-receive-pack"

    @property
    def changes_repository(self) -> bool:
        """Whether the call writes: the second request of a push does, its first only reads."""
        return self.needs_write and self.method == "POST"


def parse_call(scope: Scope) -> Call | None:
    """Return the call of a request; None when it is not part of the smart protocol."""
    path: str = scope["path"]
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    query: bytes = scope["query_string"]
    advertises = found["action"] == "info/refs"
    service = _ADVERTISED.get(query) if advertises else found["action"]
    method = "GET" if advertises else "POST"
    if service is None or scope["method"] != method:
        return None
    return Call(found["repository"], service, method, path, query.decode() if advertises else "")


def find_header(scope: Scope, name: bytes) -> str | None:
    """Return the value of the request's first header with this lower-case name, or None."""
    values = (value for key, value in scope["headers"] if key == name)
    first: bytes | None = next(values, None)
    return None if first is None else first.decode("latin-1")


class SmartHttp:
    """The ASGI application that serves the repositories under one root to its accounts."""

    def __init__(self, root: Path, accounts: Accounts) -> None:
        self._root = root
        self._accounts = accounts
        self._pushes = PushQueue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises HTTPException for one that must not reach git."""
        call = parse_call(scope)
        if call is None:
            raise HTTPException(404)
        environment = self._cgi_environment(scope, call, self._authorize(scope, call))
        try:
            await self._serve_call(call, environment, receive, send)
        except Busy:
            raise HTTPException(503, "other pushes take too long", {"Retry-After": "10"}) from None
        except TimeoutError:
            log.warning("%s: ended after %d s", call.path, REQUEST_TIMEOUT)
            raise HTTPException(504) from None

    def _authorize(self, scope: Scope, call: Call) -> str:
        """Return the name of the calling account. Raises HTTPException if it has no such right."""
        who = self._accounts.authorize(
            find_header(scope, b"authorization"), call.repository, call.needs_write
        )
        if who is Refusal.UNAUTHENTICATED:
            raise HTTPException(401, headers=CHALLENGE)
        if not repositories.exists(self._root, call.repository):
            raise HTTPException(404, "no such repository")
        if isinstance(who, Refusal):
            raise HTTPException(403, "this account has no such right on this repository")
        return who

    def _cgi_environment(self, scope: Scope, call: Call, account: str) -> dict[str, str]:
        sent = {key: find_header(scope, name) or "" for key, (name, _) in _PASSED_ON.items()}
        passed_on = {key: text for key, text in sent.items() if _PASSED_ON[key][1].fullmatch(text)}
        return (
            repositories.git_environment()
            | passed_on
            | {
                "GIT_PROJECT_ROOT": os.fspath(self._root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": call.method,
                "PATH_INFO": call.path,
                "QUERY_STRING": call.query,
                "REMOTE_USER": account,
            }
        )

    async def _serve_call(
        self, call: Call, environment: dict[str, str], receive: Receive, send: Send
    ) -> None:
        if not call.changes_repository:
            await _run_backend(environment, (), receive, send)
            return
        repository = repositories.folder(self._root, call.repository)
        async with self._pushes.turn(repository) as descriptor:
            await _run_backend(environment, (descriptor,), receive, send)


async def _run_backend(
    environment: dict[str, str], inherited: tuple[int, ...], receive: Receive, send: Send
) -> None:
    async with asyncio.timeout(REQUEST_TIMEOUT), _backend_process(environment, inherited) as git:
        await _relay_both_ways(git, receive, send)


@asynccontextmanager
async def _backend_process(
    environment: dict[str, str], inherited: tuple[int, ...]
) -> AsyncIterator[Process]:
    """Start `git http-backend`, yield it, and kill it with all its children afterwards."""
    git = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        stdin=PIPE,
        stdout=PIPE,  # its stderr is ours: the server's log
        env=environment,
        pass_fds=inherited,
        start_new_session=True,
        limit=_CHUNK,
    )
    try:
        yield git
    finally:
        with suppress(ProcessLookupError):
            os.killpg(git.pid, signal.SIGKILL)
        # Not wait(): asyncio reports the exit only after the pipe has been drained.
        await git.communicate()


class _ClientGone(Exception):
    """The client has closed its connection, so the request can be dropped."""


async def _relay_both_ways(git: Process, receive: Receive, send: Send) -> None:
    stdin, stdout = cast("StreamWriter", git.stdin), cast("StreamReader", git.stdout)
    try:
        async with asyncio.TaskGroup() as both:
            feeding = both.create_task(_feed_request(receive, stdin))
            await _relay_response(stdout, send)
            feeding.cancel()
    except* _ClientGone:
        pass


async def _feed_request(receive: Receive, stdin: StreamWriter) -> None:
    """Write the request's body to git, then wait until the client disconnects: _ClientGone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        # Git may have answered and exited before the end of the body.
        with suppress(BrokenPipeError, ConnectionResetError):
            await _write_message(stdin, message)


async def _write_message(stdin: StreamWriter, message: Message) -> None:
    if not stdin.is_closing():
        stdin.write(message.get("body", b""))
        await stdin.drain()
    if not message.get("more_body", False):
        stdin.close()


async def _relay_response(stdout: StreamReader, send: Send) -> None:
    """Stream git's answer to the client."""
    status, headers = _parse_head(await _read_head(stdout))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while chunk := await stdout.read(_CHUNK):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _read_head(stdout: StreamReader) -> bytes:
    try:
        return await stdout.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b"Status: 500 Internal Server Error\r\n"  # git's stderr in the log says why


def _parse_head(head: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Parse a CGI head into its status (200 when it names none) and its other headers."""
    lines = (line.partition(b":") for line in head.splitlines() if line)
    headers = [(name.lower(), value.strip()) for name, _, value in lines]
    status = dict(headers).get(b"status", b"200").split()[0]
    return int(status), [pair for pair in headers if pair[0] != b"status"]
