"""How many requests one address may send: so many at once, and so many a second after that."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

MOST_ADDRESSES = 4096  # that are remembered; a node has 110 pods


class Limit:
    """A bucket of requests for each address, which fills up again with time.

    An SDK whose credentials end within a quarter of an hour asks before nearly every call to AWS:
    the rate leaves room for what one pod does then.
    """

    def __init__(
        self, rate: float = 200, burst: int = 400, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Admit `burst` requests at once, and `rate` a second from then on."""
        self.rate, self.burst, self.now = rate, burst, now
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.lock = Lock()

    def admits(self, address: str) -> bool:
        """Return whether a request of the address may be served now, and count it if so."""
        with self.lock:
            now = self.now()
            left, at = self.left.pop(address, (float(self.burst), now))
            left = min(self.burst, left + (now - at) * self.rate)
            admitted = left >= 1
            self.left[address] = (left - admitted, now)
            if len(self.left) > MOST_ADDRESSES:
                self.left.popitem(last=False)
            return admitted
