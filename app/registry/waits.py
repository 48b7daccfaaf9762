"""What a server lets us wait for: a pause that it asked for, and answers that do not come.

Source: RFC 9110 section 10.2.3 (Retry-After), RFC 6585 section 4 (429).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TypeVar

from app.registry.errors import parse_retry_after

PATIENCE_S = 60.0  # for which one request waits, and is sent again, before it fails
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # where the registry does not say how long
SHOWN_S = 5.0  # without an answer, until somebody is told

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises, if it does in this time.

    It has a thread of its own: neither a resolver nor a server that sends a byte now and then
    knows of a limit for the whole.

    Raises:
        TimeoutError: it takes longer. It goes on, and its result is for nobody.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    Thread(target=run, name="within", daemon=True).start()
    return done.result(seconds)


def asks_for_pause(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer means: later. A bare 503 is a registry that is down."""
    return status == 429 or (status == 503 and "Retry-After" in headers)


class Pause:
    """A pause that a registry asked for. It holds for all requests to it; threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._in_a_row = 0
        self._lock = Lock()
        self._turn = Lock()

    @property
    def is_on(self) -> bool:
        """Whether the last answer asked for a pause, also if that is over."""
        return self._in_a_row > 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one request after the other through until an answer does not ask for a pause."""
        if self.is_on:
            with self._turn:
                yield
        else:
            yield

    @property
    def left_s(self) -> float:
        """Seconds until the registry may be asked again; 0 when it may be now."""
        return max(0.0, self._until - self._clock())

    def note(self, status: int, headers: Mapping[str, str]) -> bool:
        """Take an answer into account; whether it asks for a pause.

        Those that come during a pause were under way before it and do not let the next one grow.
        """
        asks = asks_for_pause(status, headers)
        with self._lock:
            if not asks:
                self._in_a_row = 0
                return False
            now = self._clock()
            seconds = parse_retry_after(headers.get("Retry-After", ""))
            if seconds is None and self._until <= now:
                seconds = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._in_a_row, 10))
            if self._until <= now:
                self._in_a_row += 1
            self._until = max(self._until, now + (seconds or 0))
        return True


class Waits:
    """The requests that wait for a registry just now, each with since when; threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[object, tuple[float, str]] = {}

    @contextmanager
    def wait(self, what: str, key: object = None) -> Iterator[None]:
        """Be one that waits while the context lasts; `what` is shown to people."""
        key = key or object()
        self._since[key] = (self._clock(), what)
        try:
            yield
        finally:
            self._since.pop(key, None)

    def watch(self, pieces: Iterable[bytes], what: str, key: object) -> Iterator[bytes]:
        """A body while it is sent: the registry is waited for from each piece to the next.

        Not while a piece is made: that waits for somebody else.
        """
        self._since.pop(key, None)
        for piece in pieces:
            self._since[key] = (self._clock(), what)
            yield piece
            self._since.pop(key, None)
        self._since[key] = (self._clock(), what)

    def longest(self) -> tuple[float, str]:
        """For how many seconds the registry let somebody wait the longest, and for what."""
        since, what = min(list(self._since.values()), default=(self._clock(), ""))
        return max(0.0, self._clock() - since), what
