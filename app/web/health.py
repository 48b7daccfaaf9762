"""/healthz: the process answers; /readyz: events are kept, and pages can be shown."""

from __future__ import annotations

import logging

from flask import Blueprint, Response

from app.embedded import refuse_without_space
from app.errors import InboxFull, StoreUnavailable
from app.store import deadline
from app.web.runtime import json_response, runtime

logger = logging.getLogger(__name__)
bp = Blueprint("health", __name__)
READY_S = 1.5  # for the database to take and return a write


@bp.get("/healthz")
def live() -> Response:
    """200 while the process runs."""
    return json_response({"status": "ok"})


@bp.get("/readyz")
def ready() -> Response:
    """200 when events are stored and shown, else 503 with the reason, which names no names."""
    here = runtime()
    try:
        refuse_without_space(here.settings)
    except StoreUnavailable as error:
        return _not_ready("too little disk is free", error)
    try:
        with deadline(READY_S):
            here.stores.check()
            here.intake.refuse_when_full()
            wait = here.stores.schema.find_wait()
    except InboxFull as error:
        return _not_ready("the inbox is full", error)
    except StoreUnavailable as error:
        return _not_ready("the database does not take or return a write", error)
    return _not_ready(wait) if wait else json_response({"status": "ready"})


def _not_ready(reason: str, error: StoreUnavailable | None = None) -> Response:
    if error:
        runtime().complaints.tell(logger, "not ready", error)
    return json_response({"status": "not ready", "reason": reason}, 503)
