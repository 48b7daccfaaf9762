"""How many events a registry has not delivered yet, from its debug server.

Source: distribution 2.8 and 3.0 `notifications/metrics.go`, expvar `registry.notifications`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import msgspec
import requests
import urllib3

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


class _Variables(msgspec.Struct):
    registry: _Registry = msgspec.field(default_factory=_Registry)


def count_pending(debug_url: str, timeout_s: float = TIMEOUT_S) -> int | None:
    """The events that wait at all endpoints together; None if the server does not tell in time."""
    return find_pending([debug_url], timeout_s)[debug_url]


def find_pending(debug_urls: Iterable[str], timeout_s: float) -> dict[str, int | None]:
    """The same of several servers at once, in `timeout_s` whatever they and the resolver do."""
    found: dict[str, int | None] = dict.fromkeys(debug_urls)
    deadline = time.monotonic() + timeout_s

    def ask(url: str) -> None:
        number = _ask(url, timeout_s)
        if time.monotonic() < deadline:
            found[url] = number

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def _ask(debug_url: str, timeout_s: float) -> int | None:
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
    return sum(endpoint.metrics.pending for endpoint in endpoints)


def _read(answer: requests.Response, deadline: float) -> bytes:
    """The body, or what there is of it when time or size is used up."""
    body = b""
    while time.monotonic() < deadline and len(body) < MAX_BYTES:
        piece = answer.raw.read1(PIECE_BYTES, decode_content=True)
        if not piece:
            break
        body += piece
    return body
