"""Telling people: in a lab the bucket is the mailbox, one JSON object for each notification."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import lab_bucket

FOLDER = "notifications"


def tell(dag_id: str, run_id: str, recipients: list[str], subject: str, text: str) -> str:
    """The recipients have been told: the bucket holds the notification under the returned key.

    A task that is tried again tells the same people the same subject under the same key, so that
    nobody finds two. Elsewhere this is where a Slack webhook or SMTP would be called, by Airflow's
    providers; nothing but this function would change. Raises what boto3 raises when the bucket
    takes nothing: whether that matters is the caller's to decide.
    """
    message = {
        "who": recipients,
        "subject": subject,
        "text": text,
        "run_id": run_id,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    key = key_of(dag_id, run_id, recipients, subject)
    lab_bucket.write(key, json.dumps(message, indent=1, ensure_ascii=False).encode())
    print(f"told {', '.join(recipients)}: {subject} ({key})", flush=True)
    return key


def key_of(dag_id: str, run_id: str, recipients: list[str], subject: str) -> str:
    """The same key for the same subject of the same run."""
    digest = hashlib.sha256(json.dumps([recipients, subject]).encode()).hexdigest()[:8]
    return f"{FOLDER}/{dag_id}/{lab_bucket.name_of_run(run_id)}-{digest}.json"
