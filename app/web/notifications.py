"""POST /events: the webhook that registries send to.

A registry repeats a refused event for ever, and all later ones wait behind it. So the answer is 2xx
as soon as the envelope is kept. It is never a redirect, and never a 4xx for what is in an event.
"""

from __future__ import annotations

import hmac
import logging
import time
import zlib

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from app.embedded import refuse_without_space
from app.errors import InvalidEnvelope, NotAuthenticated
from app.settings import Registry
from app.store import deadline
from app.web.runtime import json_response, runtime

logger = logging.getLogger(__name__)
bp = Blueprint("notifications", __name__)

LOG_AGAIN_S = 60.0  # that the same address is refused
MAX_REFUSED = 1_000  # addresses that are remembered
_refused: dict[str, float] = {}  # when the log was told
DEADLINE_S = 0.8  # a registry waits for a second by default


@bp.post("/events", strict_slashes=False)
def receive() -> Response:
    """Take one envelope in: 202 with counts, 400, 401, 413 or 503."""
    request.max_content_length = runtime().settings.notifications.max_body_bytes
    registry = _identify_registry()
    if not request.mimetype.endswith(("/json", "+json")):
        raise InvalidEnvelope(f"Content-Type: expected JSON, got {request.mimetype or 'none'}")
    body = request.get_data(cache=False)
    # A chunked body is cut at the limit without a word.
    if request.content_length is None and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    body = _inflate(body)
    refuse_without_space(runtime().settings)
    with deadline(DEADLINE_S):
        receipt = runtime().intake.receive(body, registry.name)
    if receipt.rejected:
        logger.warning("kept %d events of %s as rejected", receipt.rejected, registry.name)
    return json_response(receipt, 202)


def _inflate(body: bytes) -> bytes:
    """The body without `Content-Encoding: gzip`.

    Raises:
        InvalidEnvelope: it is no gzip, or is encoded otherwise.
        RequestEntityTooLarge: it is larger than a body may be.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise InvalidEnvelope(f"Content-Encoding: expected gzip or none, got {encoding[:40]}")
    limit = runtime().settings.notifications.max_body_bytes
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidEnvelope("Content-Encoding: the body is not gzip") from None
    if len(inflated) > limit:
        raise RequestEntityTooLarge
    if not inflater.eof or inflater.unused_data:
        raise InvalidEnvelope("Content-Encoding: the body is not one whole gzip stream")
    return inflated


def _identify_registry() -> Registry:
    """The registry whose token came with the request.

    Where a registry has no token, a request without one is from it; `X-Registry-Id` tells
    several such registries apart, else the first is taken. A wrong token is never taken for none
    while any registry has one: its events would be filed under another registry.

    Raises:
        NotAuthenticated: no token matches.
    """
    registries = runtime().settings.registries
    given = request.headers.get("Authorization", "").strip()
    scheme, _, credentials = given.partition(" ")
    token = (credentials.strip() if scheme.lower() == "bearer" else given).encode("utf-8")
    found: Registry | None = None
    for registry in registries:  # all of them, so that the time does not tell which one matched
        for expected in registry.all_tokens:
            if hmac.compare_digest(expected.encode("ascii"), token):
                found = registry
    open_ones = [registry for registry in registries if not registry.all_tokens]
    # Where no registry has a token, one that is sent means no less than none.
    if found is None and (not token or len(open_ones) == len(registries)):
        named = request.headers.get("X-Registry-Id")
        found = next((r for r in open_ones if named in (None, r.name)), None)
    if found is None:
        _log_refusal(request.remote_addr or "")
        if not token and request.headers.get("X-Registry-Id"):
            raise NotAuthenticated("X-Registry-Id: no registry without a token has this name")
        raise NotAuthenticated("Authorization: no registry of config.yml has this token")
    return found


def _log_refusal(address: str) -> None:
    """Tell the log, once a minute for each address: a registry's own log may say nothing."""
    now = time.monotonic()
    if now - _refused.get(address, -LOG_AGAIN_S) < LOG_AGAIN_S:
        return
    if len(_refused) >= MAX_REFUSED:
        _refused.clear()
    _refused[address] = now
    logger.warning("events from %s are refused: no registry of config.yml has their token", address)
