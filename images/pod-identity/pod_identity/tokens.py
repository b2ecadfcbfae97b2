"""What a service account's token says of itself, before anybody has looked at its signature."""

from __future__ import annotations

import base64
import binascii
import json
from http import HTTPStatus
from typing import Any

from pod_identity.wsgi import Refused

FAILED = "Service account token failed basic claim validations"
PARTS = 3  # of a JSON Web Token: header, claims and signature, with dots between them


def read_claims(token: str) -> dict[str, Any]:
    """Return the claims of a token. Raises Refused, as InvalidTokenException, if it has none."""
    try:
        parts = token.split(".")
        if len(parts) != PARTS:
            raise ValueError(f"it has {len(parts)} parts")
        inner = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.b64decode(inner, "-_", validate=True))
        if not isinstance(claims, dict):
            raise ValueError("its claims are no object")
    except (ValueError, binascii.Error) as error:
        raise refuse_token(f"Service account token cannot be parsed: {error}") from error
    return claims


def refuse_ended(claims: dict[str, Any], now: float) -> None:
    """Raise Refused unless the token counts at `now`, in seconds since 1970."""
    ends, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(ends, int | float) or ends <= now:
        raise refuse_token(f"{FAILED}: token is expired", "ExpiredTokenException")
    if not isinstance(begins, int | float) or begins > now:
        raise refuse_token(f"{FAILED}: token is not valid yet")


def refuse_token(why: str, name: str = "InvalidTokenException") -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, name, why)


def name_claimed_account(token: str) -> tuple[str, str]:
    """Return the namespace and the service account that a token names; empty texts without them."""
    try:
        said = read_claims(token).get("kubernetes.io", {})
        return str(said["namespace"]), str(said["serviceaccount"]["name"])
    except (Refused, KeyError, TypeError, AttributeError):
        return "", ""
