"""Airflow's connection to SQLite. Every component of Airflow loads this before its first query."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import now

# Seconds that a process waits for another's write; the default of five is too short under load.
CONNECT_ARGS = {"timeout": 30}


@compiles(now, "sqlite")
def render_now(element: Any, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    """Render SQL for the current time in milliseconds, in the format in which times are stored.

    SQLite's CURRENT_TIMESTAMP has whole seconds. The scheduler starts the runs that are due by the
    database's time, so a triggered run waited for the next second: half a second on average.
    """
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now'))"
