"""/healthz: the process answers; /readyz: the database takes and returns a write."""

from __future__ import annotations

from flask import Blueprint, Response

from app.store import deadline
from app.web.runtime import json_response, runtime

bp = Blueprint("health", __name__)
READY_S = 1.5  # for the database to take and return a write


@bp.get("/healthz")
def live() -> Response:
    """200 while the process runs."""
    return json_response({"status": "ok"})


@bp.get("/readyz")
def ready() -> Response:
    """200 when events can be stored, else 503."""
    with deadline(READY_S):
        runtime().stores.check()
    return json_response({"status": "ready"})
