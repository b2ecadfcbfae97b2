"""Notifications: in a lab the bucket is the mailbox, with one JSON object for each."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import lab_bucket

FOLDER = "notifications"


def tell(dag_id: str, run_id: str, recipients: list[str], subject: str, text: str) -> str:
    """Notify the recipients: write the notification to the bucket and return its key.

    A task that is retried writes the same subject to the same recipients under the same key, so
    that nobody finds two. Elsewhere this function would call a Slack webhook or SMTP, by Airflow's
    providers; nothing else would change. boto3's errors are raised: whether they matter is the
    caller's to decide.
    """
    message = {
        "who": recipients,
        "subject": subject,
        "text": text,
        "run_id": run_id,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    key = notification_key(dag_id, run_id, recipients, subject)
    lab_bucket.write(key, json.dumps(message, indent=1, ensure_ascii=False).encode())
    print(f"told {', '.join(recipients)}: {subject} ({key})", flush=True)
    return key


def notification_key(dag_id: str, run_id: str, recipients: list[str], subject: str) -> str:
    """Return the notification's key, the same for the same subject of the same run."""
    digest = hashlib.sha256(json.dumps([recipients, subject]).encode()).hexdigest()[:8]
    return f"{FOLDER}/{dag_id}/{lab_bucket.name_of_run(run_id)}-{digest}.json"
