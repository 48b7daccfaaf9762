"""gunicorn's worker, and how long it listens to a client."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

logger = logging.getLogger(__name__)

SEND_LIMIT_S = 30.0  # for a client to send a whole request, TLS handshake and body included


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's gthread, but a client that sends too slowly is cut off.

    gthread itself would let each such client occupy a thread for ever (Slowloris). An answer may
    take as long as it likes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving: dict[int, tuple[float, Any]] = {}  # by thread: since when, connection

    def load_wsgi(self) -> None:
        """Load the application, and note when it has what the client sent."""
        super().load_wsgi()
        application: Callable[..., Any] = self.wsgi  # type: ignore[has-type]

        def noting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            def start(*args: Any) -> Any:
                self._receiving.pop(threading.get_ident(), None)
                return start_response(*args)

            has_body = environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING")
            if not has_body:
                self._receiving.pop(threading.get_ident(), None)
            return application(environ, start)  # type: ignore[no-any-return]

        self.wsgi = noting

    def handle(self, conn: Any) -> Any:
        """Serve one request of a connection; runs in a thread of the pool."""
        self._receiving[threading.get_ident()] = (time.monotonic(), conn)
        try:
            return super().handle(conn)
        finally:
            self._receiving.pop(threading.get_ident(), None)

    def notify(self) -> None:
        """Tell the master that the worker lives, at least once a second; hang up meanwhile."""
        super().notify()
        for thread, (since, conn) in list(self._receiving.items()):
            if time.monotonic() - since > SEND_LIMIT_S:
                self._receiving.pop(thread, None)
                peer = conn.client[0] if isinstance(conn.client, tuple) else conn.client
                logger.warning("%s sent no whole request in %.0f s: cut off", peer, SEND_LIMIT_S)
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)
