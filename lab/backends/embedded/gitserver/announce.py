"""Notify Airflow of pushes: git's `post-receive` hook runs this in a bare repository's folder.

    python -I -S announce.py URL FILE_OF_THE_SECRET     reads lines of "OLD NEW REF"

Each push is recorded in a file before Airflow is notified, and the file is deleted when Airflow has
answered. So a push that Airflow missed is delivered with the next one, or when `lab up` runs the
hook with empty input; delivered twice, it makes one event. Only the standard library is imported:
a push waits for this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

SECONDS = 5  # the longest that a push waits for Airflow
PENDING = Path("untold")  # in the repository's folder
FINAL = (200, 202, 400)  # status codes after which a push counts as delivered


def main(url: str, secret: str) -> None:
    """Record the pushes from stdin, then deliver every pending one; print why if that fails."""
    try:
        PENDING.mkdir(mode=0o700, exist_ok=True)
        for line in sys.stdin:
            record_push(*line.split())
        token = Path(secret).read_text("ascii")
        with deadline():
            for push in sorted(PENDING.glob("*.json")):
                with suppress(FileNotFoundError):  # `lab up` may be delivering it, too
                    deliver_push(url, token, push)
    except (OSError, HTTPException) as error:
        print(
            f"Airflow was not told yet: {error}. The next push, or `lab up`, tells what is noted."
        )


@contextmanager
def deadline() -> Iterator[None]:
    """Raise TimeoutError in the block after SECONDS, whatever the block waits for."""

    def raise_timeout(*_: object) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    signal.signal(signal.SIGALRM, raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def record_push(old: str, new: str, ref: str) -> None:
    """Write a push to a file of its own, atomically, in the format of Gitea's webhook."""
    here = Path.cwd()
    push = {
        "ref": ref,
        "before": old,
        "after": new,
        "repository": {"full_name": f"{here.parent.name}/{here.stem}"},
        "pusher": {"login": os.environ.get("REMOTE_USER", "")},
    }
    part = PENDING / "part"  # no other writer: the server runs one push at a time
    with part.open("w", encoding="utf-8") as file:
        json.dump(push, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(PENDING / f"{time.time_ns()}.json")


def deliver_push(url: str, token: str, push: Path) -> None:
    """Send a push to Airflow and delete its file. Raises OSError and HTTPException."""
    body = push.read_bytes()
    status, said = post_push(url, token, body)
    if status not in FINAL:
        raise OSError(f"it answers {status}: {said}")
    push.unlink(missing_ok=True)
    print(f"Airflow was told: {said}")


def post_push(url: str, token: str, body: bytes) -> tuple[int, str]:
    """Post a push to Airflow; return the answer's status code and text."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", parts.path, body, headers)
    answer = connection.getresponse()
    text = answer.read(10_000).decode("utf-8", "replace")
    with suppress(ValueError, TypeError, LookupError):
        text = str(json.loads(text)["detail"])
    return answer.status, text[:200]


if __name__ == "__main__":
    main(*sys.argv[1:])
