"""Serialize writing requests in Airflow's api-server when its database is SQLite.

Before it handles a request, the api-server writes its audit log in the event loop itself. If
another request holds SQLite's only write lock at that moment, the loop waits for the lock, and the
holder waits for the loop to let it commit: a deadlock until SQLite times out. Twelve runs
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
    """ASGI middleware that handles requests that may write one after another."""

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
    """Plugin that adds the middleware if Airflow's metadata is in SQLite, and nothing otherwise."""

    name = "lab_sqlite"
    fastapi_root_middlewares = (
        [{"middleware": OneWriteAtATime, "args": [], "kwargs": {}, "name": "one write at a time"}]
        if conf.get("database", "sql_alchemy_conn").startswith("sqlite")
        else []
    )
