"""How Airflow connects to SQLite."""

from __future__ import annotations

# Seconds that a process waits for another one's write; the default of five is little under load.
CONNECT_ARGS = {"timeout": 30}
