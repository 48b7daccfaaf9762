"""One record, one account, one address: what is known of each, for whoever may know it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, render_template, request
from werkzeug.datastructures import MultiDict

from app.errors import NotFound
from app.rules.addresses import parse_address
from app.rules.events import Event
from app.rules.usage import Row, days_between
from app.store.catalogue import Move, Tag
from app.store.events import NONE, RecordQuery
from app.store.usage import UsageQuery
from app.web.analysis import get_event
from app.web.figures import RECENT_DAYS, find_figures, recent_days, records_linker
from app.web.forms import UsageFilter
from app.web.runtime import runtime
from app.web.signin import viewer

bp = Blueprint("details", __name__, url_prefix="/analysis")

RECENT = 10
MAX_DAYS = 3  # of an address: the rows of a day are read for all repositories
MAX_LINES = 50


class Line(NamedTuple):
    """What one account did to one tag with one client; `row` is the newest of it."""

    row: Row
    number: int


@bp.get("/record")
def record() -> Any:
    """One record, and what its tag pointed to before and after. 404 also when not visible."""
    found = get_event(request.args.get("id", ""))
    before, after = _moves_around(found)
    return render_template("analysis/record.html", record=found, before=before, after=after)


def _moves_around(event: Event) -> tuple[Move | None, Move | None]:
    """The last move of the event's tag before it, and the first one after it."""
    stores, scope = runtime().stores, viewer().scope
    tag: Tag | None = None
    if event.tag:
        tag = stores.catalogue.get_tag(event.registry, event.repository, event.tag, scope)
    moves = stores.catalogue.find_history(tag, scope) if tag else []
    return (
        next((move for move in moves if move.since < event.timestamp), None),
        next((move for move in reversed(moves) if move.since > event.timestamp), None),
    )


@bp.get("/account")
def account() -> Any:
    """What an account did in 30 days. 404 also when others are not named, or nothing is visible."""
    scope, name = viewer().scope, request.args.get("name", "")
    actor = "" if name == NONE else name
    records = []
    if name and scope.may_name(actor):
        query = RecordQuery(actor=name)
        records = runtime().stores.events.find_page(query, scope, limit=RECENT).items
    if not records:
        raise NotFound("There is no such account.")
    form = UsageFilter(MultiDict({"days": str(RECENT_DAYS), "supplements": "1"}))
    form.actor.data = name
    figures = find_figures(form)
    return render_template(
        "analysis/account.html",
        name=name,
        records=records,
        figures=figures,
        link=records_linker({"actor": name}, figures.first, figures.last),
    )


@bp.get("/address")
def address() -> Any:
    """What came from an address in 30 days, who it was on the last of them.

    404 also when it is not shown. Of an address nothing is asked of the events, which have no index
    for it: the sums tell on which days it came, and the rows of the last of these the rest.
    """
    found = parse_address(request.args.get("address", ""))
    stores, scope, now = runtime().stores, viewer().scope, datetime.now(UTC)
    first, last = recent_days(now)
    query = UsageQuery(first=first, last=last, supplements=True)
    if not scope.locates_others:
        query = msgspec.structs.replace(query, actor=scope.account)
    lines = stores.usage.read_lines("addresses", {(found,)}, query, scope, now)
    days = lines.days.get((found,))
    if not found or not days:
        raise NotFound("No pull or push came from this address in the last 30 days.")
    shown = sorted(days, reverse=True)[:MAX_DAYS]
    rows = _lines_of(stores.usage.read_address(found, shown, scope, now))
    numbers = [days.get(day, (0, 0)) for day in days_between(first, last)]
    return render_template(
        "analysis/address.html",
        address=found,
        pulls=[pulls for pulls, _ in numbers],
        pushes=[pushes for _, pushes in numbers],
        active=len(days),
        days=shown,
        missing=lines.missing,
        rows=rows[:MAX_LINES],
        more=len(rows) - MAX_LINES,
        link=records_linker({"address": found}, shown[-1], shown[0]),
    )


def _lines_of(rows: Iterable[Row]) -> list[Line]:
    """The rows added up over days and digests, the newest first."""
    found: dict[tuple[Any, ...], Line] = {}
    for row in rows:
        key = (row.registry, row.repository, row.tag, row.action, row.actor, row.client)
        before = found.get(key, Line(row, 0))
        newest = max(before.row, row, key=lambda one: one.last)
        found[key] = Line(newest, before.number + row.number)
    return sorted(found.values(), key=lambda line: line.row.last, reverse=True)
