"""The certificate, as it is in its files now."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

from gunicorn.sock import ssl_context

logger = logging.getLogger(__name__)


class Certificate:
    """Makes gunicorn's context for TLS, anew when a file has changed: renewal needs no restart.

    gunicorn itself reads the files for each connection, which costs milliseconds.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._files = [Path(file) for file in (cfg.certfile, cfg.keyfile) if file]
        self._stamp: list[int] = []
        self._context: ssl.SSLContext | None = None

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """The socket with TLS on it, before the handshake.

        Raises:
            OSError: no certificate could be read yet, or the client is gone.
        """
        self._read()
        if self._context is None:
            raise ssl.SSLError("no certificate")
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _read(self) -> None:
        stamp = [file.stat().st_mtime_ns for file in self._files if file.exists()]
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._context = ssl_context(self._cfg)
        except OSError as error:  # also half a renewal: the key of another certificate
            logger.error("the certificate cannot be read: %s", error)
