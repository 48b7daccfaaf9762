"""How many events a registry has not delivered yet, from its debug server.

Source: distribution 2.8 and 3.0 `notifications/metrics.go`, expvar `registry.notifications`.
"""

from __future__ import annotations

import msgspec
import requests

TIMEOUT_S = 5.0


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


def count_pending(debug_url: str) -> int | None:
    """The events that wait at all endpoints together; None if the server does not tell."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            url = f"{debug_url.rstrip('/')}/debug/vars"
            answer = session.get(url, timeout=TIMEOUT_S, allow_redirects=False)
        variables = msgspec.json.decode(answer.content, type=_Variables)
    except (requests.RequestException, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    endpoints = variables.registry.notifications.endpoints
    if answer.status_code != 200 or endpoints is None:
        return None
    return sum(endpoint.metrics.pending for endpoint in endpoints)
