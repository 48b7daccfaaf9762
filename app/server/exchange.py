"""One request and its answer, between a connection and the thread of gunicorn that answers."""

from __future__ import annotations

import errno
import select
from typing import Any

from gunicorn import http
from gunicorn.http import errors
from gunicorn.http.errors import ParseException

from app.server.connection import MAX_UNSENT_BYTES, READ, Connection, refusal
from app.server.held import HeldThreads

STATUSES: dict[type[ParseException], str] = {
    errors.LimitRequestLine: "414 URI Too Long",
    errors.LimitRequestHeaders: "431 Request Header Fields Too Large",
    errors.ExpectationFailed: "417 Expectation Failed",
    errors.UnsupportedTransferCoding: "501 Not Implemented",
}
MAX_TOLD = 200  # characters of what is wrong with a request, which may repeat some of it


class BodyReader:
    """What gunicorn reads a body by, but that a malformed one is an OSError.

    An application takes that for the client's fault; to others than a WSGI server gunicorn's own
    errors mean nothing, and would be a traceback of 35 lines each.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int) -> bytes:
        """The next bytes of the body.

        Raises:
            OSError: it is malformed.
        """
        try:
            return bytes(self._reader.read(size))
        except ParseException as error:
            raise OSError(errno.EBADMSG, str(error)) from error


class Exchange:
    """What gunicorn's thread sees in place of its own TConn, and in place of the socket too.

    It reads a request that is there, and writes an answer that the poller sends on. Only an answer
    of which the client leaves more than MAX_UNSENT_BYTES lets the thread wait, for `take_s` without
    progress at most, and as long as not too many wait.
    """

    initialized = data_ready = True  # gunicorn has nothing to set up or to wait for
    is_http2 = False

    def __init__(self, connection: Connection, cfg: Any, take_s: float, held: HeldThreads) -> None:
        self.connection = connection
        self.client = connection.client
        self.server = connection.server
        self.sock = self
        self._request, self.can_go_on = connection.take_request()
        self.size = len(self._request)
        self._read = 0
        self._take_s = take_s
        self._held = held
        self._has_begun = False
        self.is_malformed = False
        self.parser = http.get_parser(cfg, self, self.client)

    def recv(self, size: int) -> bytes:
        """The next bytes of the request; nothing after its end."""
        start = self._read
        self._read += size
        return self._request[start : self._read]

    def refuse(self, error: ParseException) -> None:
        """Answer what is no request of HTTP."""
        self.is_malformed = True
        status = STATUSES.get(type(error), "400 Bad Request")
        self.connection.unsent += refusal(status, str(error)[:MAX_TOLD])

    def sendall(self, data: bytes) -> None:
        """Take a piece of the answer. The header waits for the first of the body: one packet.

        Raises:
            ConnectionResetError: the client is gone, or was cut off.
        """
        self.connection.unsent += data
        if self._has_begun:
            self.flush()
        self._has_begun = True

    def flush(self) -> None:
        """Send what the client takes; wait only if it leaves too much.

        Raises:
            ConnectionResetError: the client is gone, or was cut off.
        """
        connection = self.connection
        try:
            while (events := connection.send()) and len(connection.unsent) > MAX_UNSENT_BYTES:
                self._wait(events)
        except OSError as error:
            # gunicorn knows this errno and is silent about it.
            raise ConnectionResetError(errno.ECONNRESET, "the client is gone") from error

    def _wait(self, events: int) -> None:
        self._held.enter(self.connection)
        poll = select.poll()
        poll.register(self.connection.sock, select.POLLIN if events & READ else select.POLLOUT)
        while not poll.poll(self._take_s * 1000):
            if not self.connection.is_taking():
                self.connection.cut_for = "answer"
                raise TimeoutError

    # What else gunicorn does to a connection or its socket is done by the poller, or means nothing.

    def init(self) -> None:
        """TLS stands already."""

    def setblocking(self, blocking: bool) -> None:
        """Nothing here blocks."""

    def settimeout(self, timeout_s: float | None) -> None:
        """Nothing here blocks."""

    def gettimeout(self) -> float:
        """As of a socket that does not block."""
        return 0.0

    def shutdown(self, how: int) -> None:
        """The poller ends the connection, once the answer is sent."""

    def close(self) -> None:
        """The poller ends the connection, once the answer is sent."""
