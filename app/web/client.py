"""Who sent a request: the one place where a client's address is determined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.rules.addresses import find_client

PEER = "rns.peer"  # in the environment of a request: who opened the connection


class ClientAddress:
    """WSGI middleware: `request.remote_addr` is the client's address, as find_client reads it."""

    def __init__(self, application: Any, trusted_proxies: int) -> None:
        self._application = application
        self._trusted_proxies = trusted_proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer the request."""
        environ[PEER] = environ.get("REMOTE_ADDR", "")
        environ["REMOTE_ADDR"] = find_client(
            environ[PEER],
            environ.get("HTTP_X_FORWARDED_FOR", ""),
            self._trusted_proxies,
        )
        return self._application(environ, start_response)  # type: ignore[no-any-return]
