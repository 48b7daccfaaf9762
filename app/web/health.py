"""/healthz: the process answers; /readyz: events are kept, and pages can be shown."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Blueprint, Response

from app.embedded import refuse_without_space
from app.errors import StoreUnavailable
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
    steps: list[tuple[str, Callable[[], None]]] = [
        ("too little disk is free", lambda: refuse_without_space(here.settings)),
        ("the database does not take or return a write", here.stores.check),
        ("the inbox is full", here.intake.refuse_when_full),
    ]
    with deadline(READY_S):
        for reason, step in steps:
            try:
                step()
            except StoreUnavailable as error:
                logger.error("not ready: %s", error)
                return json_response({"status": "not ready", "reason": reason}, 503)
        if wait := here.stores.schema.find_wait():
            return json_response({"status": "not ready", "reason": wait}, 503)
    return json_response({"status": "ready"})
