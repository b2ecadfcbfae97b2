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
from lab.backends.embedded.gitserver.ssh import Door, serving
from lab.backends.embedded.gitserver.web import Web
from lab.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def build(root: Path, accounts: Path, door: Door | None = None) -> Starlette:
    """The application that serves the repositories under `root` to the accounts in the file.

    When it starts, it removes what killed pushes left behind, and opens the SSH door, if there is
    to be one. Raises ServiceError when one of the two is not there.
    """
    for path, there in ((root, root.is_dir()), (accounts, accounts.is_file())):
        if not there:
            raise ServiceError(f"the git server needs {path}", "Start it by `lab up`.")
    root = root.resolve()
    known = Accounts(accounts.resolve())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        remove_all_leftovers(root)
        async with AsyncExitStack() as opened:
            if door:
                await opened.enter_async_context(serving(root, door))
            yield

    routes = [
        Route("/healthz", _healthz),
        Mount("/web", Web(root, known)),
        Mount("/", SmartHttp(root, known)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def from_environment() -> Starlette:
    """The application for GITSERVER_ROOT and GITSERVER_ACCOUNTS, a folder's and a file's path.

    With GITSERVER_SSH_PORT it has an SSH door as well, for GITSERVER_SSH_HOST_KEY and
    GITSERVER_DEPLOY_KEYS. Raises ServiceError when a path is not set, or names nothing there.
    """
    return build(_path("GITSERVER_ROOT"), _path("GITSERVER_ACCOUNTS"), _door())


def _door() -> Door | None:
    port = os.environ.get("GITSERVER_SSH_PORT")
    if not port:
        return None
    return Door(int(port), _path("GITSERVER_SSH_HOST_KEY"), _path("GITSERVER_DEPLOY_KEYS"))


def _path(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise ServiceError(f"{variable} is not set", "Start the git server by `lab up`.")
    return Path(value)


async def _healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")
