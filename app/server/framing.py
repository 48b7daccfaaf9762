"""Where a request ends in what a client sends (RFC 9112, sections 6 and 7). Knows no sockets.

What a request means, and whether it is refused, is for gunicorn's parser to say. This only says
when it has all that it will read.
"""

from __future__ import annotations

import re

MAX_HEADER_BYTES = 64 * 1024  # gunicorn's own limits are lower for a line and for a field
MAX_CHUNK_LINE_BYTES = 8 * 1024

_FIELD = re.compile(rb"\r\n(content-length|transfer-encoding|expect):[ \t]*([^\r\n]*)", re.I)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9a-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n", re.I)


class Framing:
    """Watches one request arrive; the next one on the same connection needs another.

    `has_header` is true once the header is whole. `wants_continue` is true while the client waits
    for `100 Continue` before it sends its body. `is_odd` is true of a request that is not waited
    for: it is malformed or too large, and where the next one begins is unknown.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self.has_header = False
        self.wants_continue = False
        self.is_odd = False
        self._end: int | None = None  # of the request; None while a chunk may follow
        self._chunk = 0  # where the next line with the size of a chunk begins
        self._excess = 0  # of what the sizes of chunks take over what is in them
        self._searched = 0  # up to where there is no end of the header
        self._searched_trailers = 0

    def find_end(self, received: bytearray) -> int | None:
        """The end of the request in all that came so far, or None while more must come.

        An odd request ends with what is there.
        """
        if not self.has_header:
            self._read_header(received)
        if self.has_header and self._end is None and not self.is_odd:
            self._read_chunks(received)
        if self.is_odd:
            return len(received)
        if self._end is not None and len(received) >= self._end:
            return self._end
        return None

    def _read_header(self, received: bytearray) -> None:
        end = received.find(b"\r\n\r\n", max(self._searched - 3, 0))
        self._searched = len(received)
        if end < 0:
            self.is_odd = len(received) > MAX_HEADER_BYTES
            return
        self.has_header = True
        fields: dict[bytes, list[bytes]] = {}
        for match in _FIELD.finditer(received, 0, end + 2):
            fields.setdefault(match[1].lower(), []).append(match[2].strip().lower())
        lengths = fields.get(b"content-length", [])
        codings = fields.get(b"transfer-encoding", [])
        if codings and not lengths and b"chunked" in codings[-1]:
            self._chunk = end + 4
        elif codings or len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            self.is_odd = True
        else:
            length = int(lengths[0]) if lengths else 0
            self._end = end + 4 + length
            self.is_odd = length > self._max_body_bytes  # refused before it is sent
        expected = fields.get(b"expect", [])
        self.is_odd |= any(value != b"100-continue" for value in expected)
        is_old = b" HTTP/1.0\r\n" in received[: received.find(b"\r\n", 2) + 2]
        self.wants_continue = bool(expected) and not is_old

    def _read_chunks(self, received: bytearray) -> None:
        while self._chunk < len(received):
            if received[self._chunk - 2 : self._chunk] != b"\r\n":
                self.is_odd = True  # a proxy may have read on, and taken it for something else
                break
            if received.find(b"\r\n", self._chunk) < 0:
                self.is_odd = len(received) - self._chunk > MAX_CHUNK_LINE_BYTES
                break
            line = _CHUNK_LINE.match(received, self._chunk)
            if line is None:
                self.is_odd = True
                break
            size = int(line[1], 16)
            if not size:
                self._read_trailers(received, line.end())
                break
            self._excess += line.end() - self._chunk + 2 - size
            self._chunk = line.end() + size + 2
            if self._excess > MAX_HEADER_BYTES:  # chunks of a byte each take seconds to read
                self.is_odd = True
                break
        if len(received) > 2 * self._max_body_bytes + MAX_HEADER_BYTES:
            self.is_odd = True

    def _read_trailers(self, received: bytearray, start: int) -> None:
        end = received.find(b"\r\n\r\n", max(start - 2, self._searched_trailers - 3))
        self._searched_trailers = len(received)
        if end >= 0:
            self._end = end + 4
        else:
            self.is_odd = len(received) - start > MAX_HEADER_BYTES
