"""What was decided about a token: one line of JSON each, without the token and without a key.

`lab doctor` reads these lines. An account is what the token says of itself: a token that is refused
may say anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pod_identity.tokens import name_claimed_account
from pod_identity.wsgi import Refused

GRANTED, REFUSED = "granted", "refused"


@contextmanager
def logging_refusal(token: str) -> Iterator[None]:
    """Log why the token is refused, if the block refuses it."""
    try:
        yield
    except Refused as error:
        log_decision(token, REFUSED, error=error.name, why=str(error))
        raise


def log_decision(token: str, decision: str, **more: str) -> None:
    """Print one line about a token."""
    namespace, account = name_claimed_account(token)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "namespace": namespace,
        "serviceAccount": account,
        "decision": decision,
        **more,
    }
    print(json.dumps(line), file=sys.stdout, flush=True)
