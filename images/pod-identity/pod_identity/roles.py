"""The roles: each is a user of S3's server, as which the stand-in opens sessions.

The users' long-lived keys are in files of the stand-in's own Secret, one per role.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pod_identity.clients import open_client
from pod_identity.kubernetes import unavailable

TIMEOUTS = (0.3, 0.7)  # seconds, for a connection and for an answer
UNUSED = "arn:aws:iam::000000000000:role/unused"  # S3's server asks for none: a user is its role


@dataclass(frozen=True)
class Roles:
    """Who has which role, and where sessions of it come from."""

    associations: Path  # JSON: `namespace/account` to role; read at each request
    keys: Path  # a folder: the secret key of each role, in a file of its name
    endpoint: str  # of S3's server
    region: str
    seconds: int  # that a session lasts

    def find(self, namespace: str, account: str) -> str | None:
        """Return the role of a service account; None without an association."""
        known: dict[str, str] = json.loads(self.associations.read_text("utf-8"))
        return known.get(f"{namespace}/{account}")

    def open_session(self, role: str, name: str) -> dict[str, Any]:
        """Return the keys of a new session of the role. Raises Refused when there are none."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            secret = (self.keys / role).read_text("ascii")
            said = connect(self.endpoint, self.region, role, secret).assume_role(
                RoleArn=UNUSED, RoleSessionName=name, DurationSeconds=self.seconds
            )
        except (OSError, BotoCoreError, ClientError) as error:
            raise unavailable(f"no session of {role} could be opened: {error}") from error
        keys: dict[str, Any] = said["Credentials"]
        return keys


@lru_cache(maxsize=32)
def connect(endpoint: str, region: str, role: str, secret: str) -> Any:
    """Return a client of the STS of S3's server, as the user of a role."""
    keys = {"aws_access_key_id": role, "aws_secret_access_key": secret}
    return open_client("sts", region, endpoint, TIMEOUTS, **keys)
