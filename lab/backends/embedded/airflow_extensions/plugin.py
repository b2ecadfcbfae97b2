"""One writing request at a time in Airflow's api-server, where its database is SQLite.

Before it handles a request, the api-server writes its audit log from the event loop itself. When
another request holds SQLite's only write lock at that moment, the loop waits for the lock, and the
holder waits for the loop to go on and commit: neither moves until SQLite gives up. Twelve runs
triggered at once took minutes or failed. Writes take milliseconds, so they queue here instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
READING = {"GET", "HEAD", "OPTIONS"}


class OneWriteAtATime:
    """ASGI middleware: requests that may write are handled one after another."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.turn = asyncio.Lock()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self.app(scope, receive, send)
            return
        async with self.turn:
            await self.app(scope, receive, send)


class SqlitePlugin(AirflowPlugin):
    """Adds the middleware where Airflow's metadata is in SQLite, and nothing elsewhere."""

    name = "lab_sqlite"
    fastapi_root_middlewares = (
        [{"middleware": OneWriteAtATime, "args": [], "kwargs": {}, "name": "one write at a time"}]
        if conf.get("database", "sql_alchemy_conn").startswith("sqlite")
        else []
    )
