"""How fast requests and bytes may go, by token buckets, and how wide work may be after a 429."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

WIDEN_AFTER_S = 60.0


class Bucket:
    """Lets `rate` units a second through, in bursts of at most a second's worth; 0 is no limit."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()  # when all that was taken so far is paid for
        self._lock = Lock()

    def take(self, amount: float = 1) -> None:
        """Wait until `amount` may pass; more than a burst just waits longer."""
        if not self.rate:
            return
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - 1) + amount / self.rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)


class Width:
    """How many jobs may run at a time: halved by a 429 or 503, one more each quiet minute."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = most
        self._clock = clock
        self._changed = clock()
        self._lock = Lock()

    def narrow(self) -> None:
        """A registry has too much to do. More of them within a second count once."""
        with self._lock:
            now = self._clock()
            if self._now == self._most or now - self._changed > 1:
                self._now = max(1, self._now // 2)
                self._changed = now

    @property
    def jobs(self) -> int:
        """The number of jobs that may run now."""
        with self._lock:
            now = self._clock()
            if self._now < self._most and now - self._changed > WIDEN_AFTER_S:
                self._now += 1
                self._changed = now
            return self._now
