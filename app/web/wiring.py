"""Wiring, for administrators: what arrives, who is refused, which events are not understood."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from flask import (
    Blueprint,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext
from werkzeug.wrappers import Response

from app.errors import InvalidQuery, NotFound
from app.notifications.loading import take_in_again
from app.notifications.wiring import find_arrival, find_wiring, has_come
from app.rules.events import Rejected
from app.settings import find_file
from app.store.paging import Count, Page
from app.version import VERSION
from app.web import languages, lists
from app.web.lists import Item, Listing, fields_of
from app.web.preferences import page_size
from app.web.runtime import runtime
from app.web.signin import administrator, is_administrator
from app.web.texts import told

bp = Blueprint("wiring", __name__, url_prefix="/wiring")

REFRESH_S = 2
TEST_S = 300  # that a test waits

EmptyCase = Literal["nothing", "refused", "rejected", "waiting", "hidden"]


@bp.get("/")
def home() -> Any:
    """What is wired how, and what is wrong. 403 to others."""
    administrator()
    here, now = runtime(), datetime.now(UTC)
    file = find_file()
    return render_template(
        "wiring/home.html",
        wiring=find_wiring(here.stores, here.settings, now),
        settings=here.settings,
        config_file=file.absolute() if file else None,
        program=VERSION,
        now_ms=_milliseconds(now),
    )


@bp.get("/test")
def test() -> Any:
    """Wait for the next push or pull; the page asks again by itself. 403 to others, 400."""
    administrator()
    since = _parse_since(request.args.get("since", ""))
    waited_s = (datetime.now(UTC) - since).total_seconds()
    arrival = find_arrival(runtime().stores, since)
    is_waiting = not arrival.is_anything and waited_s < TEST_S
    page = render_template(
        "wiring/test.html",
        arrival=arrival,
        is_waiting=is_waiting,
        waited_s=waited_s,
        now_ms=_milliseconds(datetime.now(UTC)),
    )
    response = make_response(page)
    if is_waiting:
        response.headers["Refresh"] = str(REFRESH_S)
    return response


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _parse_since(text: str) -> datetime:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(text))
    except (ValueError, OverflowError):
        raise InvalidQuery("since: expected milliseconds since 1970") from None


@bp.get("/rejected")
def rejected() -> Any:
    """The events that could not be understood, the newest first. 403 to others."""
    administrator()
    listing = rejected_listing()
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    return render_template("wiring/rejected.html", page=page, count=lists.total(listing, page))


def rejected_listing(form: Any = None) -> Listing:
    """All events that could not be understood; for administrators alone."""
    administrator()
    store = runtime().stores.rejected

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = store.find_page(cursor=cursor, limit=limit)
        return Page([fields_of(row) for row in page.items], page.next)

    return Listing("rejected-events", Rejected.__struct_fields__, find, lambda cap: _count(cap))


def _count(cap: int) -> Count:
    number = runtime().stores.rejected.count()
    return Count(min(number, cap), number > cap)


@bp.post("/rejected/<any(retry, drop):action>")
def act(action: str) -> Response:
    """Retry or drop the event `id`, or all of them: 303 back. 403 to others, 404."""
    flash(carry_out(action, request.form.get("id", "")), "success")
    return redirect(url_for("wiring.rejected"), 303)


def carry_out(action: str, event_id: str = "") -> str:
    """Retry or drop one rejected event, or all; returns a sentence that says what was done.

    Raises:
        NotFound: there is no such event.
    """
    administrator()
    store = runtime().stores.rejected
    found = [store.find(event_id)] if event_id else list(store.find_all())
    events = [event for event in found if event is not None]
    if event_id and not events:
        raise NotFound("There is no such rejected event.")
    if action == "drop":
        dropped = sum(store.drop(event.id) for event in events)
        return gettext("Dropped %(number)s.", number=dropped)
    reasons = take_in_again(runtime().stores, events)
    done = languages.number(len(events) - len(reasons))
    if not reasons:
        return gettext("Took in %(number)s again.", number=done)
    return gettext(
        "Took in %(number)s again; %(left)s are still not understood: %(reason)s",
        number=done,
        left=languages.number(len(reasons)),
        reason=told(reasons[0]),
    )


def empty_case() -> EmptyCase:
    """Why a page has nothing to show: for an administrator all cases, else the last or the first.

    Whether anything ever came tells nobody of what repository.
    """
    stores = runtime().stores
    if not has_come(stores):
        return "refused" if is_administrator() and stores.wiring.find_refusals() else "nothing"
    if not is_administrator():
        return "hidden"
    if stores.inbox.count():
        return "waiting"
    return "rejected" if stores.rejected.count() else "hidden"
