"""The notifications of DAGs: in a lab, the bucket is the mailbox."""

from __future__ import annotations

import json
from typing import Any

from lab.lab import Lab


def read_messages(lab: Lab, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Read the notifications that a run of the DAG has sent, by their keys."""
    keys = [entry["Key"] for entry in lab.list_objects(f"notifications/{dag_id}/")]
    messages = [json.loads(lab.read_object(key)) for key in keys]
    return [message for message in messages if message["run_id"] == run_id]
