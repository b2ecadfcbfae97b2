"""The git server as one ASGI application; `uvicorn --factory` calls `from_environment`."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from lab.backends.embedded.gitserver.accounts import Accounts
from lab.backends.embedded.gitserver.pushes import remove_all_leftovers
from lab.backends.embedded.gitserver.smart_http import SmartHttp
from lab.backends.embedded.gitserver.ssh import SshEndpoint, serving_ssh
from lab.backends.embedded.gitserver.web import Web
from lab.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def build_application(root: Path, accounts: Path, ssh: SshEndpoint | None = None) -> Starlette:
    """Build the application that serves the repositories under `root` to the accounts in the file.

    On startup the application removes what killed pushes left behind, and starts the SSH endpoint
    if one is given. Raises ServiceError when `root` or `accounts` does not exist.
    """
    for path, exists in ((root, root.is_dir()), (accounts, accounts.is_file())):
        if not exists:
            raise ServiceError(f"the git server needs {path}", "Start it by `lab up`.")
    root = root.resolve()
    known = Accounts(accounts.resolve())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        remove_all_leftovers(root)
        async with AsyncExitStack() as stack:
            if ssh:
                await stack.enter_async_context(serving_ssh(root, ssh))
            yield

    routes = [
        Route("/healthz", _healthz),
        Mount("/web", Web(root, known)),
        Mount("/", SmartHttp(root, known)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def from_environment() -> Starlette:
    """Build the application from GITSERVER_ROOT, a folder, and GITSERVER_ACCOUNTS, a file.

    With GITSERVER_SSH_PORT it has an SSH endpoint as well, which uses GITSERVER_SSH_HOST_KEY and
    GITSERVER_DEPLOY_KEYS. Raises ServiceError when a path is not set or does not exist.
    """
    return build_application(
        _path_from_environment("GITSERVER_ROOT"),
        _path_from_environment("GITSERVER_ACCOUNTS"),
        _endpoint_from_environment(),
    )


def _endpoint_from_environment() -> SshEndpoint | None:
    port = os.environ.get("GITSERVER_SSH_PORT")
    if not port:
        return None
    return SshEndpoint(
        int(port),
        _path_from_environment("GITSERVER_SSH_HOST_KEY"),
        _path_from_environment("GITSERVER_DEPLOY_KEYS"),
    )


def _path_from_environment(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise ServiceError(f"{variable} is not set", "Start the git server by `lab up`.")
    return Path(value)


async def _healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")
