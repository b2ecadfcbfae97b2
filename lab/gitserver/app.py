"""The server as one ASGI application: `uvicorn --factory lab.gitserver.app:from_environment`."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from lab.errors import ServiceError
from lab.gitserver.accounts import Accounts
from lab.gitserver.pushes import remove_all_leftovers
from lab.gitserver.smart_http import SmartHttp
from lab.gitserver.web import Web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def build(root: Path, accounts: Path) -> Starlette:
    """The application that serves the repositories under `root` to the accounts in the file.

    When it starts, it removes what killed pushes left behind. Raises ServiceError when one of
    the two is not there.
    """
    for path, there in ((root, root.is_dir()), (accounts, accounts.is_file())):
        if not there:
            raise ServiceError(f"the git server needs {path}", "Start it by `lab up`.")
    root = root.resolve()
    known = Accounts(accounts.resolve())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        remove_all_leftovers(root)
        yield

    routes = [
        Route("/healthz", _healthz),
        Mount("/web", Web(root, known)),
        Mount("/", SmartHttp(root, known)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def from_environment() -> Starlette:
    """The application for GITSERVER_ROOT and GITSERVER_ACCOUNTS, a folder's and a file's path.

    Raises ServiceError when one of them is not set, or names nothing that is there.
    """
    return build(_path("GITSERVER_ROOT"), _path("GITSERVER_ACCOUNTS"))


def _path(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise ServiceError(f"{variable} is not set", "Start the git server by `lab up`.")
    return Path(value)


async def _healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")
