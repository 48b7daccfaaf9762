"""POST /events: the webhook that registries send to.

A registry repeats a refused event for ever, and all later ones wait behind it. So the answer is 2xx
as soon as the envelope is kept. It is never a redirect, and never a 4xx for what is in an event.
"""

from __future__ import annotations

import hmac
import logging
import time
import zlib
from datetime import UTC, datetime

from flask import Blueprint, Response, g, request, url_for
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge

from app.embedded import refuse_without_space
from app.errors import InvalidEnvelope, NotAuthenticated
from app.notifications.intake import Receipt
from app.rules.text import clean_text
from app.settings import Registry
from app.store.wiring import Sender
from app.web.runtime import json_response, meter, runtime

logger = logging.getLogger(__name__)
bp = Blueprint("notifications", __name__)

EVENTS_TYPE = "application/vnd.docker.distribution.events."  # and v1+json or v2+json


@bp.before_request
def note_beginning() -> None:
    """Note when the answer was begun."""
    g.began = time.monotonic()


@bp.after_request
def count_answer(response: Response) -> Response:
    """Count the answer, whatever it is."""
    meter().count_answer(response.status_code, time.monotonic() - g.began)
    return response


@bp.post("/events", strict_slashes=False)
def receive() -> Response:
    """Take one envelope in: 202 with counts, 400, 401, 413 or 503."""
    request.max_content_length = runtime().settings.notifications.max_body_bytes
    try:
        registry = _identify_registry()
        receipt = _take_in(registry)
    except InvalidEnvelope as error:
        _note_refusal("body", f"what it sends is no envelope: {error}")
        raise
    except RequestEntityTooLarge:
        limit = runtime().settings.notifications.max_body_bytes
        text = f"an envelope is larger than notifications.max_body_bytes, which is {limit:,}"
        _note_refusal("size", text)
        raise
    _note_receipt(registry, receipt, time.monotonic() - g.began)
    return json_response(receipt, 202)


def _take_in(registry: Registry) -> Receipt:
    if not request.mimetype.endswith(("/json", "+json")):
        raise InvalidEnvelope(f"Content-Type: expected JSON, got {request.mimetype or 'none'}")
    body = request.get_data(cache=False)
    # A chunked body is cut at the limit without a word.
    if request.content_length is None and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    body = _inflate(body)
    refuse_without_space(runtime().settings)
    receipt = runtime().intake.receive(body, registry.name, meter=meter())
    if receipt.rejected:
        told = f"events of {registry.name}: kept whole, see rns events rejected"
        runtime().complaints.tell(logger, "not understood", told, logging.WARNING)
    return receipt


def _note_receipt(registry: Registry, receipt: Receipt, seconds: float) -> None:
    now = datetime.now(UTC)
    sender = Sender(
        registry=registry.name,
        address=request.remote_addr or "",
        at=now.replace(microsecond=now.microsecond // 1000 * 1000),
        user_agent=clean_text(request.headers.get("User-Agent", ""), 200),
        accepted=receipt.accepted,
        ignored=receipt.ignored,
        rejected=receipt.rejected,
        slowest_s=round(seconds, 3),
    )
    runtime().watch.note_receipt(sender)
    if not logger.isEnabledFor(logging.DEBUG):
        return
    fields = {
        "registry": registry.name,
        "address": sender.address,
        "accepted": receipt.accepted,
        "ignored": receipt.ignored,
        "rejected": receipt.rejected,
        "bytes": request.content_length,
        "ms": round(seconds * 1000, 1),
    }
    text = " ".join(f"{name}={value}" for name, value in fields.items())
    logger.debug("envelope %s", text, extra={"fields": fields})


def refuse_elsewhere() -> None:
    """Tell a registry that sends its notifications to another path; before anything else is asked.

    Raises:
        NotFound, MethodNotAllowed: this is such a request.
    """
    if request.blueprint == bp.name or request.method in ("GET", "HEAD", "OPTIONS"):
        return
    is_lost = request.routing_exception is not None and request.mimetype == "application/json"
    if not request.mimetype.startswith(EVENTS_TYPE) and (
        not is_lost or request.path.startswith("/api/")
    ):
        return
    right = url_for("notifications.receive")
    if request.path.rstrip("/") == "/events":
        text = f"it sends them by {request.method[:20]}: {right} takes POST"
        _note_refusal("method", text)
        raise MethodNotAllowed(valid_methods=["POST"], description=f"Notifications: {text}.")
    path = f"{request.script_root}{request.path}"[:100]
    text = f"it sends them to {path}: the url of its endpoint has to end in {right}"
    _note_refusal(f"path {path}", text)
    if isinstance(request.routing_exception, MethodNotAllowed):
        methods = request.routing_exception.valid_methods
        raise MethodNotAllowed(valid_methods=methods, description=f"Notifications: {text}.")
    raise NotFound(f"Notifications: {text}.")


def _note_refusal(reason: str, text: str) -> None:
    runtime().watch.note_refusal(request.remote_addr or "", reason, text)


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
        if not token and request.headers.get("X-Registry-Id"):
            _note_refusal("name", "no registry of config.yml without a token has its X-Registry-Id")
            raise NotAuthenticated("X-Registry-Id: no registry without a token has this name")
        what = "has its token" if token else "may do without a token, and it sends none"
        hint = "compare registries[].token with headers.Authorization of its endpoint"
        _note_refusal("token", f"no registry of config.yml {what}: {hint}")
        raise NotAuthenticated(f"Authorization: no registry of config.yml {what}")
    return found
