"""Credentials that are still good, by token and by the address that sent it.

The same token from another address is asked for anew: a token that is sent again after its pod is
gone finds nothing here, and EKS Auth refuses it.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

from pod_identity.wsgi import Refused

MOST = 2000  # that are kept
EARLY = 3600.0  # seconds before their end from which on new ones are asked for, at most
SHARE = 2 / 3  # of their life, likewise: of 900 s the last 600, which an SDK wants to have left
LEAST = 15.0  # seconds that those must still last which are given when no new ones can be had

Key = tuple[str, str]


@dataclass(frozen=True)
class Credentials:
    """A session's keys and its end, in seconds since 1970."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(repr=False)
    account: str
    ends: float


class Unreachable(Exception):
    """EKS Auth did not answer in time, or failed; this says nothing about the token."""


@dataclass
class Held:
    """Credentials, and when new ones should be asked for."""

    credentials: Credentials
    due: float


class Cache:
    """Gives credentials, from a call to `fetch` or from an earlier one.

    Requests that come while one asks for the same wait for its answer.
    """

    def __init__(
        self, fetch: Callable[[str], Credentials], now: Callable[[], float] = time.time
    ) -> None:
        self.fetch, self.now = fetch, now
        self.held: OrderedDict[Key, Held] = OrderedDict()
        self.asked: dict[Key, Future[Credentials]] = {}
        self.lock = Lock()

    def find(self, token: str, address: str) -> Credentials:
        """Return credentials for the token. Raises Refused or Unreachable."""
        key = (hashlib.sha256(token.encode()).hexdigest(), address)
        with self.lock:
            held = self.held.get(key)
            if held and held.due > self.now():
                return held.credentials
            asked = self.asked.get(key)
            is_first = asked is None
            answer = self.asked.setdefault(key, Future())
        if is_first:
            self.ask(key, token, held, answer)
        return answer.result()

    def ask(self, key: Key, token: str, held: Held | None, answer: Future[Credentials]) -> None:
        """Ask for new credentials; have whoever waits for them get them, or what went wrong."""
        try:
            found = self.renew(key, token, held)
        except BaseException as error:  # whoever waits raises it
            self.settle(key)
            answer.set_exception(error)
        else:
            self.settle(key)
            answer.set_result(found)

    def settle(self, key: Key) -> None:
        with self.lock:
            del self.asked[key]

    def renew(self, key: Key, token: str, held: Held | None) -> Credentials:
        """Fetch and keep new credentials; give the old ones while EKS Auth does not answer."""
        try:
            found = self.fetch(token)
        except Refused:
            self.keep(key, None)
            raise
        except Unreachable:
            if held and held.credentials.ends - self.now() > LEAST:
                return held.credentials
            raise
        self.keep(key, found)
        return found

    def keep(self, key: Key, found: Credentials | None) -> None:
        """Keep the credentials, or none; forget those that have ended, and the oldest of many."""
        now = self.now()
        with self.lock:
            self.held.pop(key, None)
            if found:
                life = found.ends - now
                self.held[key] = Held(found, found.ends - min(SHARE * life, EARLY))
            for other in [k for k, one in self.held.items() if one.credentials.ends <= now]:
                del self.held[other]
            while len(self.held) > MOST:
                self.held.popitem(last=False)
