"""The events of a request body, each still as text; JSON that others can read is repaired. Pure."""

from __future__ import annotations

import re

import msgspec

MAX_REPAIRED_BYTES = 256 * 1024  # of an envelope: repairing is slow
MAX_DEPTH = 64  # of a repaired envelope's nesting; what lies deeper is not looked at


class _WireEnvelope(msgspec.Struct):
    events: list[msgspec.Raw]


class _BareEvent(msgspec.Struct):
    action: str


_decode_envelope = msgspec.json.Decoder(_WireEnvelope).decode
_decode_bare = msgspec.json.Decoder(_BareEvent).decode


def split_events(body: bytes) -> list[msgspec.Raw]:
    """The events of a body; JSON that only our decoder cannot read is repaired and read again.

    Raises:
        msgspec.DecodeError, RecursionError: it is not JSON, or neither an envelope nor an event.
    """
    try:
        return _find_events(body)
    except (msgspec.DecodeError, RecursionError):
        if len(body) > MAX_REPAIRED_BYTES:
            raise
    return _find_events(_cut_depths(_replace_lone_surrogates(body)))


def _find_events(body: bytes) -> list[msgspec.Raw]:
    try:
        return _decode_envelope(body).events
    except msgspec.ValidationError as error:
        try:
            _decode_bare(body)
        except msgspec.ValidationError:
            raise error from None
        return [msgspec.Raw(body)]


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _replace_lone_surrogates(body: bytes) -> bytes:
    """Half a surrogate pair becomes U+FFFD, as in Go: JSON's grammar allows it, no text does."""
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["lone"] else escape[0], body)


# A string may lack its end: were it no match, each quote in it would be tried to the end again.
_BRACKETS = re.compile(
    rb'"(?:[^"\\]|\\.)*+"?|(?P<opened>[\[{]+)|(?P<closed>[\]}]+)',
    re.DOTALL,
)


def _cut_depths(body: bytes) -> bytes:
    """`body` with null in place of what is nested deeper than MAX_DEPTH."""
    kept: list[bytes] = []
    depth = start = 0
    for token in _BRACKETS.finditer(body):
        before = depth
        depth += len(token["opened"] or b"") - len(token["closed"] or b"")
        if before <= MAX_DEPTH < depth:
            kept += body[start : token.start() + MAX_DEPTH - before], b"null"
            start = len(body)
        elif depth <= MAX_DEPTH < before:
            start = token.start() + before - MAX_DEPTH
    return b"".join((*kept, body[start:]))
