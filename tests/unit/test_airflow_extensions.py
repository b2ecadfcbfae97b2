"""The lab's additions to Airflow: SQLite's `now()`, and a queue for requests that write."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, DateTime, MetaData, Table, create_engine, func, insert, select

from lab.backends.embedded.airflow_extensions import sqlite
from lab.backends.embedded.airflow_extensions.plugin import OneWriteAtATime


def test_sqlites_time_has_parts_of_a_second_and_compares_with_stored_times() -> None:
    assert sqlite.CONNECT_ARGS["timeout"] > 5
    runs = Table("runs", MetaData(), Column("due", DateTime))
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        runs.metadata.create_all(connection)
        now = datetime.now(UTC).replace(tzinfo=None)
        early, late = now - timedelta(milliseconds=5), now + timedelta(seconds=30)
        connection.execute(insert(runs), [{"due": early}, {"due": late}])
        due = connection.execute(select(runs.c.due).where(runs.c.due <= func.now())).scalars().all()
        shown: Any = connection.scalar(select(func.now()))
    assert due == [early]
    assert abs(shown - now) < timedelta(seconds=20)
    assert "%f" in str(select(func.now()).compile(engine))


def test_a_default_of_a_column_may_be_the_database_s_time() -> None:
    rows = Table("t", MetaData(), Column("at", DateTime, server_default=func.now()))
    with create_engine("sqlite://").begin() as connection:
        rows.metadata.create_all(connection)


@pytest.mark.parametrize(("method", "at_once"), [("POST", 1), ("PATCH", 1), ("GET", 3)])
def test_requests_that_may_write_are_handled_one_after_another(method: str, at_once: int) -> None:
    now = most = 0

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)  # long enough for the others to arrive
        now -= 1

    async def send_three_requests() -> None:
        guarded = OneWriteAtATime(app)
        scope = {"type": "http", "method": method}
        await asyncio.gather(*(guarded(scope, do_nothing, do_nothing) for _ in range(3)))

    async def do_nothing(*_: Any) -> Any:
        return None

    asyncio.run(send_three_requests())
    assert most == at_once
