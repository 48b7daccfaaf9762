"""What every view shares: settings, stores, and who is asking."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any, cast

import msgspec
from flask import Response, current_app, request

from app.logs import Complaints
from app.migration import Plan
from app.notifications.intake import Intake
from app.notifications.meter import Meter
from app.notifications.watch import Watch
from app.registry.token_server import TokenServer
from app.settings import Settings
from app.store import Stores

BEHIND_S = 10.0  # what is worked in so late is told to who looks


class Runtime(msgspec.Struct, frozen=True):
    """The long-lived objects of one application, in `app.extensions["rns"]`."""

    settings: Settings
    stores: Stores
    intake: Intake
    watch: Watch
    plans: list[Plan]  # of migrations, in the order of the configuration
    meter: Meter  # where no master has one for all its workers, in tests for example
    sign_in_places: BoundedSemaphore  # of threads that may look at a password
    complaints: Complaints  # of what is away
    token_server: TokenServer | None = None  # knows the passwords, if it is not our database


def runtime() -> Runtime:
    """The current application's Runtime."""
    return cast(Runtime, current_app.extensions["rns"])


def meter() -> Meter:
    """The Meter of this server; app.server.worker puts it into the environment of a request."""
    return request.environ.get("rns.meter") or runtime().meter


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON; datetimes as RFC 3339 in UTC."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def wants_json() -> bool:
    """Whether a program asks, which is answered in JSON."""
    is_program = request.path.startswith(("/events", "/api/v1/", "/healthz", "/readyz"))
    return is_program or request.mimetype.endswith(("/json", "+json"))


def find_up_to() -> datetime | None:
    """Until when the figures go, where that is more than 10 s ago; else None."""
    progress = runtime().stores.inbox.find_progress()
    if progress is None or progress.seconds_behind(datetime.now(UTC)) <= BEHIND_S:
        return None
    return progress.until
