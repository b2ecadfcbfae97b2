"""Who may read and write which repository: a JSON file of hashed tokens.

    {"pipeline": {"sha256": "9f86…", "read": ["lab/datasets"], "write": ["lab/datasets"]}}

The tokens are long and random, so one SHA-256 is enough: there is nothing to guess.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import json
import logging
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

# A name becomes the value of REMOTE_USER, and must not contain the colon of Basic authentication.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Refusal(enum.Enum):
    """Why a request is not allowed: its sender is unknown, or has no such right."""

    UNAUTHENTICATED = 401
    FORBIDDEN = 403


@dataclass(frozen=True)
class Account:
    """The SHA-256 of an account's token, and the repositories it may read and write."""

    sha256: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @classmethod
    def with_token(
        cls, token: str, *, read: Iterable[str] = (), write: Iterable[str] = ()
    ) -> Account:
        """Return an account for this token; only the token's hash is kept."""
        return cls(_hash_token(token), tuple(read), tuple(write))

    def with_rights_of(self, other: Account) -> Account:
        """Return this account with the other one's rights added."""
        both = [(*mine, *more) for mine, more in zip(self.rights(), other.rights(), strict=True)]
        read, write = (tuple(dict.fromkeys(names)) for names in both)
        return Account(self.sha256, read, write)

    def rights(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the repositories it may read, and those it may write."""
        return self.read, self.write


# No token has this digest. It stands in for an unknown account, so that a wrong name takes the
# same code path, and the same time, as a wrong token.
_NOBODY = Account("0" * 64)


class Accounts:
    """The accounts in one file, which is read again at each call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def authenticate(self, authorization: str | None) -> tuple[str, Account] | None:
        """Return the name and account that an Authorization header proves, or None.

        Returns None for everybody when the file is missing or broken; the log says so.
        """
        name, token = _parse_credentials(authorization)
        account = self.read_accounts().get(name, _NOBODY)
        return (name, account) if hmac.compare_digest(_hash_token(token), account.sha256) else None

    def authorize(self, authorization: str | None, repository: str, write: bool) -> str | Refusal:
        """Return the name of the account that the header proves, or the reason for a refusal."""
        who = self.authenticate(authorization)
        if who is None:
            return Refusal.UNAUTHENTICATED
        name, account = who
        rights = account.write if write else account.read
        return name if repository in rights else Refusal.FORBIDDEN

    def read_accounts(self) -> dict[str, Account]:
        """Return the accounts by name; none when the file is missing or broken."""
        # Read at every request instead of watching mtime, size and inode: it is a few hundred
        # bytes, and a revoked token can't live on in a cache that missed a change.
        try:
            return _parse_accounts(json.loads(self.path.read_bytes()))
        except (OSError, ValueError) as error:
            log.warning("nobody is let in: %s: %s", self.path, type(error).__name__)
            return {}


def write_accounts(path: Path, accounts: Mapping[str, Account]) -> None:
    """Replace the file atomically: every reader sees the old accounts or these, never a part.

    The file is readable by its owner only (0600) and synced to disk. Raises ValueError for an
    account that could not be read back, OSError when the file can't be written.
    """
    entries = {name: asdict(account) for name, account in accounts.items()}
    text = json.dumps(entries, indent=2, sort_keys=True) + "\n"
    _parse_accounts(json.loads(text))
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(unfinished)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _parse_accounts(entries: Any) -> dict[str, Account]:
    if not isinstance(entries, dict):
        raise ValueError("the accounts are not a JSON object")
    return {_require_match(_NAME, name): _parse_account(entry) for name, entry in entries.items()}


def _parse_account(entry: Any) -> Account:
    if not isinstance(entry, dict) or set(entry) != {"sha256", "read", "write"}:
        raise ValueError("an account needs sha256, read and write, and nothing else")
    return Account(
        _require_match(_SHA256, entry["sha256"]),
        _parse_repositories(entry["read"]),
        _parse_repositories(entry["write"]),
    )


def _require_match(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError("not a usable account name or SHA-256")
    return value


def _parse_repositories(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("an account's rights are not a list of repository names")
    return tuple(value)


def _parse_credentials(authorization: str | None) -> tuple[str, str]:
    """Return the name and token of a Basic header; two empty strings for any other header."""
    scheme, _, encoded = (authorization or "").partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        decoded = ""
    name, _, token = decoded.partition(":")
    return (name, token) if scheme.lower() == "basic" else ("", "")


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8")).hexdigest()
