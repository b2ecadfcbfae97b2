"""Tells Airflow of pushes: git's `post-receive` hook runs it in the folder of a bare repository.

    python -I -S announce.py URL FILE_OF_THE_SECRET     reads lines of "OLD NEW REF"

Each push is noted in a file before Airflow is told, and the file goes when Airflow has answered. So
what Airflow did not hear, it hears at the next push, or when `lab up` runs the hook without a line;
told twice, it makes one event. Only the standard library is here: a push waits for this.
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

SECONDS = 5  # that a push waits for Airflow, at most
UNTOLD = Path("untold")  # in the repository's folder
FINAL = (200, 202, 400)  # answers after which there is nothing left to tell


def main(url: str, secret: str) -> None:
    """Airflow knows of the pushes, or whoever pushes is told that it does not yet, and why."""
    try:
        UNTOLD.mkdir(mode=0o700, exist_ok=True)
        for line in sys.stdin:
            note(*line.split())
        token = Path(secret).read_text("ascii")
        with deadline():
            for push in sorted(UNTOLD.glob("*.json")):
                with suppress(FileNotFoundError):  # `lab up` may be at it, too
                    tell(url, token, push)
    except (OSError, HTTPException) as error:
        print(
            f"Airflow was not told yet: {error}. The next push, or `lab up`, tells what is noted."
        )


@contextmanager
def deadline() -> Iterator[None]:
    """Raises TimeoutError in the block when it takes too long, whatever it waits for."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def note(old: str, new: str, ref: str) -> None:
    """A file says what was pushed, in Gitea's words; it is there whole or not at all."""
    here = Path.cwd()
    push = {
        "ref": ref,
        "before": old,
        "after": new,
        "repository": {"full_name": f"{here.parent.name}/{here.stem}"},
        "pusher": {"login": os.environ.get("REMOTE_USER", "")},
    }
    part = UNTOLD / "part"  # nobody else writes: git runs one push at a time
    with part.open("w", encoding="utf-8") as file:
        json.dump(push, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(UNTOLD / f"{time.time_ns()}.json")


def tell(url: str, token: str, push: Path) -> None:
    """Airflow has been told, and the file is gone. Raises OSError and HTTPException."""
    body = push.read_bytes()
    status, said = post(url, token, body)
    if status not in FINAL:
        raise OSError(f"it answers {status}: {said}")
    push.unlink(missing_ok=True)
    print(f"Airflow was told: {said}")


def post(url: str, token: str, body: bytes) -> tuple[int, str]:
    """The status of Airflow's answer, and what it says."""
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", place.path, body, headers)
    answer = connection.getresponse()
    text = answer.read(10_000).decode("utf-8", "replace")
    with suppress(ValueError, TypeError, LookupError):
        text = str(json.loads(text)["detail"])
    return answer.status, text[:200]


if __name__ == "__main__":
    main(*sys.argv[1:])
