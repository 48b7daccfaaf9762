"""What a registry's debug server tells: the events that it has not delivered, and which process.

Source: distribution 2.8 and 3.0 `notifications/metrics.go`, expvar `registry.notifications`, and
Go's `runtime.MemStats`, expvar `memstats`.
"""

from __future__ import annotations

import time

import msgspec
import requests
import urllib3

from app.registry.waits import within

TIMEOUT_S = 5.0
MAX_BYTES, PIECE_BYTES = 4_000_000, 64 * 1024


class _Metrics(msgspec.Struct, rename="pascal"):
    pending: int = 0


class _Endpoint(msgspec.Struct):
    metrics: _Metrics = msgspec.field(default_factory=_Metrics, name="Metrics")


class _Notifications(msgspec.Struct):
    endpoints: list[_Endpoint] | None = None


class _Registry(msgspec.Struct):
    notifications: _Notifications = msgspec.field(default_factory=_Notifications)


class _Memory(msgspec.Struct):
    collections: int = msgspec.field(default=0, name="NumGC")
    ends: list[int] = msgspec.field(default_factory=list, name="PauseEnd")


class _Variables(msgspec.Struct):
    registry: _Registry = msgspec.field(default_factory=_Registry)
    memstats: _Memory = msgspec.field(default_factory=_Memory)


class DebugState(msgspec.Struct, frozen=True):
    """The events that wait at all endpoints together, and what tells the process from others.

    That is when Go collected its garbage: the n-th time `ends[(n - 1) % len(ends)]`, in ns since
    1970. No two processes share these moments.
    """

    pending: int
    collections: int = 0
    ends: tuple[int, ...] = ()

    @property
    def last_at(self) -> int:
        """When the last collection ended; 0 where there was none."""
        return self._end_of(self.collections)

    def goes_on(self, collections: int, last_at: int) -> bool:
        """Whether the process is the one that was seen with these; False where nobody can tell."""
        since = self.collections - collections
        return 0 <= since < len(self.ends) and self._end_of(collections) == last_at

    def _end_of(self, number: int) -> int:
        return self.ends[(number - 1) % len(self.ends)] if number and self.ends else 0


def ask_debug_server(debug_url: str, timeout_s: float = TIMEOUT_S) -> DebugState | None:
    """What a debug server tells, in `timeout_s` whatever it and the resolver do; else None."""
    try:
        return within(timeout_s, lambda: _ask(debug_url, timeout_s))
    except TimeoutError:
        return None


def _ask(debug_url: str, timeout_s: float) -> DebugState | None:
    url = f"{debug_url.rstrip('/')}/debug/vars"
    try:
        with requests.Session() as session:
            session.trust_env = False
            with session.get(url, timeout=timeout_s, allow_redirects=False, stream=True) as answer:
                body = _read(answer, time.monotonic() + timeout_s)
        variables = msgspec.json.decode(body, type=_Variables)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    endpoints = variables.registry.notifications.endpoints
    if answer.status_code != 200 or endpoints is None:
        return None
    pending = sum(endpoint.metrics.pending for endpoint in endpoints)
    memory = variables.memstats
    return DebugState(pending, memory.collections, tuple(memory.ends))


def _read(answer: requests.Response, deadline: float) -> bytes:
    """The body, or what there is of it when time or size is used up."""
    body = b""
    while time.monotonic() < deadline and len(body) < MAX_BYTES:
        piece = answer.raw.read1(PIECE_BYTES, decode_content=True)
        if not piece:
            break
        body += piece
    return body
