"""Where a request ends, against gunicorn's own parser."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.errors import NoMoreData, ParseException
from hypothesis import given
from hypothesis import strategies as st

from app.server.framing import MAX_HEADER_BYTES, Framing

MAX_BODY = 1000
HEADER = b"POST /events HTTP/1.1\r\nHost: rns\r\n"

bodies = st.binary(max_size=40)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request as a client may send it."""
    body = draw(bodies)
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    name = draw(st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
    if kind == "none":
        return HEADER + b"\r\n"
    if kind == "length":
        return HEADER + name + b": \t%d \r\nAccept: */*\r\n\r\n" % len(body) + body
    extension = draw(st.sampled_from([b"", b";a=b", b' ; q="x y"']))
    pieces = [*draw(st.lists(bodies.filter(len), max_size=4)), b""]
    trailer = draw(st.sampled_from([b"", b"Checked: yes\r\n", b"A: b\r\nC: d\r\n"]))
    chunks = [b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces]
    chunks[-1] = b"0\r\n" + trailer + b"\r\n"
    return HEADER + b"Transfer-Encoding: Chunked\r\n\r\n" + b"".join(chunks)


def parse(data: bytes) -> int:
    """How many bytes gunicorn takes for the first request; raises what it raises."""
    parser = RequestParser(Config(), iter([data]), ("127.0.0.1", 1))
    next(parser).body.read()
    return len(data) - len(parser.unreader.take_buffered())


def ends(pieces: Sequence[bytes]) -> list[int | None]:
    """What the framing says after each piece."""
    framing, received = Framing(MAX_BODY), bytearray()
    found = []
    for piece in pieces:
        received += piece
        found.append(framing.find_end(received))
    return found


@given(requests(), st.binary(max_size=20), st.data())
def test_a_request_ends_where_gunicorn_ends_it_however_it_comes(
    request: bytes, next_one: bytes, data: st.DataObject
) -> None:
    whole = request + next_one
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    found = ends(pieces)

    assert parse(whole) == len(request)
    assert found[-1] == len(request)
    for length, end in zip([*cuts, len(whole)], found, strict=True):
        assert end == (len(request) if length >= len(request) else None)


@given(requests(), st.data())
def test_what_is_damaged_ends_no_elsewhere_than_gunicorn_says(
    request: bytes, data: st.DataObject
) -> None:
    """A difference would let a client hide a request in another one (request smuggling)."""
    at = data.draw(st.integers(0, len(request)))
    other = data.draw(st.sampled_from([b"", b"\r\n", b"\n", b" ", b"0", b"-", b":", b";", b"\xb2"]))
    damaged = request[:at] + other + request[at + data.draw(st.integers(0, 3)) :]
    framing = Framing(MAX_BODY)

    end = framing.find_end(bytearray(damaged))

    if end is None or framing.is_odd:
        return  # it is not whole, or nothing may follow it
    try:
        assert parse(damaged[:end]) == end
    except NoMoreData:
        raise AssertionError("gunicorn would read on") from None
    except ParseException:
        pass  # refused, and the connection is closed


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Content-Length: five\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 0000000000000000000000005\r\n",
        b"Content-Length: %d\r\n" % (MAX_BODY + 1),
        b"Content-Length: 5\r\nExpect: a miracle\r\n",
    ],
)
def test_nobody_waits_for_the_body_of_a_request_that_is_refused(fields: bytes) -> None:
    framing, received = Framing(MAX_BODY), bytearray(HEADER + fields + b"\r\n")

    assert framing.find_end(received) == len(received)
    assert framing.is_odd


@pytest.mark.parametrize(
    "chunk",
    [
        b"xyz\r\n",
        b"-5\r\n",
        b"\r\n",
        b"5" * 9000,
        b"0\r\n" + b"t" * 70_000,
        b"5\r\nhelloXX0\r\n\r\n",  # what stands after a chunk is not a line's end
        b"5\r\nhello\n\n0\r\n\r\n",
    ],
)
def test_a_chunk_that_is_none_ends_a_request(chunk: bytes) -> None:
    framing = Framing(MAX_BODY)
    received = bytearray(HEADER + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)

    assert framing.find_end(received) == len(received)
    assert framing.is_odd


def test_a_header_or_a_chunked_body_that_never_ends_is_not_kept_for_ever() -> None:
    header, chunked = bytearray(HEADER), bytearray(HEADER + b"Transfer-Encoding: chunked\r\n\r\n")
    one, two = Framing(MAX_BODY), Framing(MAX_BODY)

    while one.find_end(header) is None:
        header += b"X: y\r\n" * 10
    while two.find_end(chunked) is None:
        chunked += b"64\r\n" + b"x" * 100 + b"\r\n"

    assert MAX_HEADER_BYTES < len(header) < MAX_HEADER_BYTES + 100
    assert 2 * MAX_BODY < len(chunked) < 2 * MAX_BODY + MAX_HEADER_BYTES + 200
    assert one.is_odd
    assert two.is_odd


def test_chunks_of_a_byte_each_are_read_up_to_a_limit_and_not_for_seconds() -> None:
    framing, received = Framing(4 * 1024 * 1024), bytearray(HEADER)
    received += b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = 0

    while framing.find_end(received) is None:
        received += b"1\r\nx\r\n" * 100
        chunks += 100

    assert framing.is_odd
    assert MAX_HEADER_BYTES // 4 <= chunks <= MAX_HEADER_BYTES // 4 + 100


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize(
    "begin", [b"Transfer-Encoding: chunked\r\n\r\n5;", b"Transfer-Encoding: chunked\r\n\r\n0\r\n"]
)
def test_a_line_that_comes_byte_by_byte_costs_no_more_with_each(begin: bytes, end: bytes) -> None:
    framing, received = Framing(MAX_BODY), bytearray(HEADER + begin)
    began = time.process_time()

    for byte in b"x" * 8_000 + end:
        received.append(byte)
        found = framing.find_end(received)

    assert (found is None) == (not end or begin.endswith(b";"))
    assert time.process_time() - began < 0.3


@pytest.mark.parametrize(
    ("version", "expected", "waits"),
    [
        (b"1.1", b"100-continue", True),
        (b"1.1", b"100-Continue ", True),
        (b"1.0", b"100-continue", False),
    ],
)
def test_who_expects_100_continue_waits_for_it(
    version: bytes, expected: bytes, waits: bool
) -> None:
    framing = Framing(MAX_BODY)
    header = b"POST / HTTP/%s\r\nContent-Length: 5\r\nExpect: %s\r\n\r\n" % (version, expected)

    assert framing.find_end(bytearray(header)) is None
    assert framing.has_header
    assert framing.wants_continue is waits
