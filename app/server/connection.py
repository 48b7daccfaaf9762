"""A client's connection: a request is kept until it is whole, an answer until it is taken.

Nothing here waits for a client, except the thread that makes a long answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import selectors
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from app.server.framing import Framing

Wrap = Callable[[socket.socket], ssl.SSLSocket]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
PIECE_BYTES = 64 * 1024  # that are received or sent at a time
KERNEL_BYTES = 128 * 1024  # of an answer on its way; by itself the kernel keeps up to 4 MB
MAX_UNSENT_BYTES = 1024 * 1024  # of an answer that no thread waits for
MAX_DISCARDED_BYTES = 16 * 1024 * 1024  # of what a client sends after its last answer
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# To who speaks TLS to a port without it, or HTTP to one with it: what is said of it, in words.
WRONG_SCHEMES = {
    "tls": "it speaks TLS to a port without: its url begins with https, and has to with http",
    "plain": "it speaks plain HTTP to a port with TLS: its url has to begin with https",
}
TLS_RECORD = b"\x16\x03"  # of a handshake (RFC 8446, 5.1); no HTTP request begins so

State = Literal[
    "silent",  # nothing came since it was accepted
    "handshake",  # of TLS
    "header",
    "body",
    "whole",  # a request is there, and a thread of the pool has the connection or soon will
    "answer",  # some of it is not sent yet
    "idle",  # between two requests
    "closing",  # all is sent, and the client has not hung up yet
    "over",
]


@dataclass(frozen=True)
class Limits:
    """How long a client is waited for, in seconds, and how much of it is kept.

    `send_s`: for a TLS handshake, for a whole header, and for the next piece of a body. `take_s`:
    for the next piece of an answer. `idle_s`: between requests. `close_s`: for hanging up.
    """

    send_s: float = 5.0
    take_s: float = 5.0
    idle_s: float = 75.0  # longer than the 60 s between events that proxies usually allow
    close_s: float = 2.0
    max_body_bytes: int = 4 * 1024 * 1024


class Connection:
    """One client. At any time one thread has it: the poller's, or the one that answers.

    `deadline` is when its time in this `state` is over, by time.monotonic(). `cut_for` is why it
    must be cut off, if it was found out elsewhere than by the deadline.
    """

    def __init__(
        self, sock: socket.socket, client: Any, server: Any, limits: Limits, tls: Wrap | None = None
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self.sock = sock
        self.client = client
        self.server = server
        self.events = 0  # that the selector waits for
        self.has_asked = False  # at least one request was whole
        self.cut_for = ""
        self.received = bytearray()
        self.unsent = bytearray()
        self._limits = limits
        self._tls = tls  # None without TLS, and once it is begun
        self._is_plain = tls is None
        self._framing = Framing(limits.max_body_bytes)
        self._end = 0  # of the request that is whole
        self._is_last = False  # it is closed after this answer
        self._queued_bytes = 0  # that the kernel had and the client had not
        self._discarded_bytes = 0
        self._enter("silent")

    def _enter(self, state: State) -> None:
        """Change the state, or show progress within it."""
        limits = self._limits
        allowed_s = {"answer": limits.take_s, "idle": limits.idle_s, "closing": limits.close_s}
        self.state: State = state
        self.deadline = time.monotonic() + allowed_s.get(state, limits.send_s)

    @property
    def held_bytes(self) -> int:
        """What is kept of this client in memory."""
        return len(self.received) + len(self.unsent)

    def advance(self) -> int:
        """Go on as far as nothing has to be waited for; returns the selector's events to wait for.

        It is 0 when the state is `whole` or `over`.
        """
        if self.state == "over":
            return 0
        try:
            if self._tls or self.state == "handshake":
                self._shake_hands()
            if self.unsent and (events := self.send()) and self.state == "answer":
                return events
            if self.state == "answer":
                self._end_answer()
            return self._discard() if self.state == "closing" else self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return READ | WRITE if self.unsent else READ  # `100 Continue` behind another answer
        except ssl.SSLWantWriteError:
            return WRITE
        except OSError:
            self.state = "over"
            return 0

    def _shake_hands(self) -> None:
        if self._tls:
            first = self.sock.recv(1, socket.MSG_PEEK)  # a silent client is to cost nothing more
            if not first:
                raise ConnectionAbortedError
            if first.isalpha():
                self.sock.recv(PIECE_BYTES)
                self._refuse_scheme("plain")
            self.sock, self._tls = self._tls(self.sock), None
            self._enter("handshake")
        try:
            self.sock.do_handshake()  # type: ignore[attr-defined]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            raise
        except ssl.SSLError:  # another protocol, or no trust in our certificate
            self.cut_for = "handshake"
            raise
        self._enter("silent")

    def _refuse_scheme(self, reason: str) -> None:
        """Answer in plain HTTP, whose meaning shows in the log of whoever spoke TLS."""
        self.cut_for = reason
        text = f"This server cannot be reached so: {WRONG_SCHEMES[reason]}."
        self.sock.send(refusal("400 Bad Request", text))
        raise ConnectionAbortedError

    def _receive(self) -> int:
        while not (self.received and self._is_whole()):
            data = self.sock.recv(PIECE_BYTES)
            if not data:
                self.state = "over"
                return 0
            self.received += data
            if self._is_plain and not self.has_asked and self.received.startswith(TLS_RECORD):
                self._refuse_scheme("tls")
        self.state = "whole"
        return 0

    def _is_whole(self) -> bool:
        end = self._framing.find_end(self.received)
        if end is not None:
            self._end = end
            return True
        if self._framing.has_header:
            self._enter("body")
        elif self.state != "header":
            self._enter("header")
        if self._framing.wants_continue:
            self._framing.wants_continue = False
            self.unsent += CONTINUE
            self.send()
        return False

    def take_request(self) -> tuple[bytes, bool]:
        """The request that is whole, and whether another one can follow it."""
        request, is_odd = bytes(self.received[: self._end]), self._framing.is_odd
        del self.received[: self._end]
        self._framing = Framing(self._limits.max_body_bytes)
        self.has_asked = True
        self._queued_bytes = 0
        self._enter("answer")
        return request, not is_odd

    def give_back(self, *, is_last: bool) -> None:
        """The thread is done with its answer; `advance` sends what is left of it."""
        self._is_last = is_last
        self._enter("over" if self.cut_for else "answer")

    def _end_answer(self) -> None:
        if self._is_last:
            self.sock.shutdown(socket.SHUT_WR)
            self._enter("closing")
        else:
            self._enter("idle")

    def _discard(self) -> int:
        """Read on, because to close now could destroy the answer on its way (RFC 9112, 9.6)."""
        while data := self.sock.recv(PIECE_BYTES):
            self._discarded_bytes += len(data)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                break
        self.state = "over"
        return 0

    def send(self) -> int:
        """Send what the kernel takes now; returns the selector's events to wait for, 0 for none.

        Raises:
            OSError: the client is gone.
        """
        before = len(self.unsent)
        try:
            while self.unsent:
                sent = self.sock.send(self.unsent[:PIECE_BYTES])
                del self.unsent[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError):
            events = WRITE
        except ssl.SSLWantReadError:
            events = READ
        else:
            return 0
        if self.state == "answer" and (len(self.unsent) < before or not self._queued_bytes):
            self._queued_bytes = self._count_queued()
            self._enter("answer")
        return events

    def is_taking(self) -> bool:
        """Whether the client took some of its answer since it was last seen to take any.

        That the kernel wants no more says little: it waits until a third of its queue is free,
        which may be a megabyte.
        """
        queued = self._count_queued()
        if queued >= self._queued_bytes:
            return False
        self._queued_bytes = queued
        self._enter("answer")
        return True

    def _count_queued(self) -> int:
        try:
            answer = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        except OSError:  # not on Linux
            return 0
        return int(struct.unpack("i", answer)[0])

    def cut_off(self, reason: str) -> None:
        """End a connection that another thread has; that one finds it out, and gives it back.

        Not by way of the socket's own method: with TLS that one takes the encryption away first,
        and the other thread might send on.
        """
        self.cut_for = reason
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up. Whoever does not take its answer is reset, or the kernel would keep that."""
        self.state = "over"
        if self.cut_for == "answer" or self.unsent:
            reset = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.sock.close()


def refusal(status: str, text: str) -> bytes:
    """The last answer of a connection, given before any application is asked."""
    body = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
