"""Whether the server can listen where it should."""

from __future__ import annotations

import socket

from app.errors import StartupError
from app.settings import parse_bind


def check_port(bind: str) -> None:
    """Raise StartupError when nothing can listen on `bind`.

    gunicorn itself would try for five seconds, with a traceback's worth of lines.
    """
    host, port = parse_bind(bind)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupError(f"server.bind: cannot listen on {bind}: {reason}") from None
