"""Analysis: who pushed and pulled what, when, from where."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template
from werkzeug.datastructures import MultiDict

from app.events import Event
from app.store.events import RecordQuery
from app.store.paging import Page
from app.web.forms import RecordFilter
from app.web.lists import Item, Listing, fields_of
from app.web.runtime import runtime
from app.web.search import RECENT, filter_form, results
from app.web.signin import viewer

bp = Blueprint("analysis", __name__, url_prefix="/analysis")

INTERNAL = ("references",)


@bp.get("/")
def home() -> Any:
    """The latest records and the ways into them."""
    records = runtime().stores.events.find_page(RecordQuery(), viewer().scope, limit=RECENT)
    return render_template("analysis/home.html", records=records.items)


@bp.get("/user/")
def records_form() -> Any:
    """The record search form."""
    return filter_form("analysis/records.html", RecordFilter(MultiDict()))


@bp.route("/user/login/", methods=["GET", "POST"])
def records() -> Any:
    """The records found, newest first."""
    return results("analysis/records.html", RecordFilter, record_listing)


def record_listing(form: RecordFilter) -> Listing:
    """The records that a valid form selects."""
    events, scope, query = runtime().stores.events, viewer().scope, form.query()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = events.find_page(query, scope, cursor=cursor, limit=limit)
        return Page([fields_of(event, INTERNAL) for event in page.items], page.next)

    columns = [name for name in Event.__struct_fields__ if name not in INTERNAL]
    return Listing("records", columns, find, lambda cap: events.count(query, scope, cap=cap))
