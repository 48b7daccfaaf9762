"""Analysis: figures over time, and who pushed and pulled what, when, from where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from flask import Blueprint, render_template, request, url_for
from werkzeug.datastructures import MultiDict

from app.events import CLIENTS, Event
from app.recall import Consumer, Recall, recall_digest, recall_tag
from app.store.events import NONE, RecordQuery
from app.store.paging import Page
from app.store.usage import UsageQuery
from app.unused import USERS, Report, UnusedTag, find_unused
from app.usage import PULL, PUSH, Calendar, Row, Total, days_between, total_by
from app.web import lists
from app.web.forms import RecallFilter, RecordFilter, UnusedFilter, UsageFilter
from app.web.lists import Item, Listing, fields_of
from app.web.runtime import runtime
from app.web.search import filter_form, results
from app.web.signin import viewer

bp = Blueprint("analysis", __name__, url_prefix="/analysis")

INTERNAL = ("references",)
MAX_HOURLY_DAYS = 2
TOP = 10


class Slot(msgspec.Struct, frozen=True):
    """A day, or an hour of a short period: what happened from `start` (inclusive) to `end`."""

    start: datetime  # in the zone of the figures
    end: datetime
    pushes: int
    pulls: int
    checks: int
    deletes: int


class Top(msgspec.Struct, frozen=True):
    """One line of a top list; `filters` select its records."""

    name: str
    pulls: int
    pushes: int
    filters: dict[str, str]


class Figures(msgspec.Struct, frozen=True):
    """The dashboard's figures for one viewer; `before` are those of the period of equal length."""

    first: date
    last: date
    time_zone: str
    totals: dict[str, int]
    before: dict[str, int]
    slots: Sequence[Slot]
    tops: dict[str, Sequence[Top]]
    missing: Sequence[date]  # days that are being prepared and are not in any figure

    @property
    def hourly(self) -> bool:
        """Whether the slots are hours."""
        return (self.last - self.first).days < MAX_HOURLY_DAYS


@bp.get("/")
def home() -> Any:
    """The dashboard."""
    viewer()
    form = UsageFilter(request.args)
    if not form.validate():
        return render_template("analysis/home.html", form=form, figures=None), 400
    figures = find_figures(form)
    return render_template(
        "analysis/home.html",
        form=form,
        figures=figures,
        link=_linker(form, figures, runtime().stores.usage.calendar),
        has_events=bool(figures.slots) or runtime().stores.events.has_any(),
    )


def find_figures(form: UsageFilter) -> Figures:
    """The figures that a valid form selects."""
    stores, scope, now = runtime().stores, viewer().scope, datetime.now(UTC)
    calendar = stores.usage.calendar
    first, last = form.period(calendar.day_of(now))
    query = form.query(first, last)
    length = last - first + timedelta(days=1)
    query_before = form.query(first - length, first - timedelta(days=1))
    usage = stores.usage.read(query, scope, now)
    before = stores.usage.read(query_before, scope, now)
    return Figures(
        first=first,
        last=last,
        time_zone=calendar.zone,
        totals=_totals(usage.rows, query),
        before=_totals(before.rows, query_before),
        slots=_slots(usage.rows, query),
        tops=_tops(usage.rows),
        missing=[*before.missing, *usage.missing],
    )


def _totals(rows: Sequence[Row], query: UsageQuery) -> dict[str, int]:
    total = Total()
    active = set()
    for row in rows:
        total.add(row)
        if row.action in (PUSH, PULL):
            active.add((row.registry, row.repository))
    totals = {
        "pushes": total.pushes,
        "pulls": total.pulls,
        "checks": total.checks,
        "deletes": total.deletes,
        "repositories": len(active),
        "bytes_pushed": total.bytes_pushed,
    }
    if query.actor is None and query.clients is None:
        calendar = runtime().stores.usage.calendar
        totals["new_tags"] = runtime().stores.catalogue.count_new_tags(
            calendar.start_of(query.first),
            calendar.end_of(query.last),
            viewer().scope,
            registry=query.registry,
            namespace=query.namespace,
            repository=query.repository,
        )
    return totals


def _slots(rows: Sequence[Row], query: UsageQuery) -> list[Slot]:
    usage = runtime().stores.usage
    if (query.last - query.first).days < MAX_HOURLY_DAYS:
        hours = usage.read_hours(query, viewer().scope)
        return [_slot(start, start + timedelta(hours=1), n) for start, n in sorted(hours.items())]
    by_day = total_by(rows, lambda row: row.day)
    calendar = usage.calendar
    return [
        _slot(
            calendar.local(calendar.start_of(day)),
            calendar.local(calendar.end_of(day)),
            by_day[day].counts if day in by_day else {},
        )
        for day in days_between(query.first, query.last)
    ]


def _slot(start: datetime, end: datetime, counts: dict[str, int]) -> Slot:
    pushes, pulls, checks, deletes = (
        counts.get(action, 0) for action in ("push", "pull", "check", "delete")
    )
    return Slot(start, end, pushes, pulls, checks, deletes)


_TOPS: dict[str, Callable[[Row], dict[str, str]]] = {
    "repositories": lambda row: {"registry": row.registry, "repository": row.repository},
    "tags": lambda row: {
        "registry": row.registry,
        "repository": row.repository,
        "tag": row.tag or NONE,
    },
    "accounts": lambda row: {"actor": row.actor or NONE},
    "clients": lambda row: {"client": row.client},
    "addresses": lambda row: {"address": row.address},
}
_TOP_NAMES: dict[str, Callable[[dict[str, str]], str]] = {
    "repositories": lambda of: of["repository"],
    "tags": lambda of: f"{of['repository']}:{of['tag']}",
    "accounts": lambda of: "anonymous" if of["actor"] == NONE else of["actor"],
    "clients": lambda of: of["client"],
    "addresses": lambda of: of["address"],
}


def _tops(rows: Sequence[Row]) -> dict[str, Sequence[Top]]:
    """The most pulled (then pushed) of each kind, ten at most."""
    counted = [row for row in rows if row.action in (PUSH, PULL)]
    tops: dict[str, Sequence[Top]] = {}
    for kind, filters_of in _TOPS.items():
        rows_of_kind = [
            row
            for row in counted
            if (kind != "tags" or row.tag) and (kind != "addresses" or row.address)
        ]
        found = total_by(rows_of_kind, lambda row, of=filters_of: tuple(of(row).items()))  # type: ignore[misc]
        order = sorted(found.items(), key=lambda pair: (-pair[1].pulls, -pair[1].pushes, pair[0]))
        tops[kind] = [
            Top(_TOP_NAMES[kind](dict(key)), total.pulls, total.pushes, dict(key))
            for key, total in order[:TOP]
        ]
    return tops


def _linker(form: UsageFilter, figures: Figures, calendar: Calendar) -> Callable[..., str]:
    """A function that makes the URL of the records behind a figure."""
    filters = form.record_filters()
    first, last = calendar.start_of(figures.first), calendar.end_of(figures.last)

    def link(
        action: str, start: datetime | None = None, end: datetime | None = None, **more: str
    ) -> str:
        times = {"from": _utc(start or first), "to": _utc(end or last)}
        arguments: dict[str, Any] = {**filters, "action": action, **more, **times}
        return url_for("analysis.records", **arguments)

    return link


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@bp.get("/unused")
def unused() -> Any:
    """Tags that nobody used, with proof and the commands that delete them; changes nothing."""
    viewer()
    form = UnusedFilter(request.args)
    if not form.validate():
        return render_template("analysis/unused.html", form=form, page=None), 400
    report = find_report(form)
    listing = unused_listing(form, report)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), lists.PAGE_SIZE)
    return render_template(
        "analysis/unused.html",
        form=form,
        report=report,
        page=page,
        count=listing.count(lists.PAGE_COUNT_CAP),
        hosts={r.name: r.hosts[0] for r in runtime().settings.registries if r.hosts},
        has_events=runtime().stores.events.has_any(),
    )


def find_report(form: UnusedFilter) -> Report:
    """The unused tags that a valid form selects."""
    return find_unused(
        runtime().stores,
        viewer().scope,
        form.days.data or 90,
        datetime.now(UTC),
        clients=(*CLIENTS,) if form.scanners.data else USERS,
        registry=form.registry.data or None,
        namespace="" if form.namespace.data == NONE else form.namespace.data or None,
        repository=form.repository.data or None,
    )


def unused_listing(form: UnusedFilter, report: Report | None = None) -> Listing:
    """The unused tags, each with its last pull before, if that is on record."""
    tags = (report or find_report(form)).tags

    def find(cursor: str | None, limit: int) -> Page[Item]:
        rows, more = lists.slice_of(tags, _tag_key, cursor, limit)
        return Page([_unused_item(row) for row in rows], more)

    columns = (*UnusedTag.__struct_fields__, "last_pulled_at", "last_pulled_by")
    return Listing("unused", columns, find, lambda cap: lists.count_of(tags, cap))


def _tag_key(row: UnusedTag) -> str:
    return f"{row.repository} {row.tag} {row.registry}"


def _unused_item(row: UnusedTag) -> Item:
    query = RecordQuery(registry=row.registry, repository=row.repository, tag=row.tag)
    last = runtime().stores.events.find_last("pull", query, viewer().scope)
    return {
        **fields_of(row),
        "last_pulled_at": last.timestamp if last else None,
        "last_pulled_by": last.actor if last else None,
    }


@bp.get("/recall")
def recall() -> Any:
    """Who pulled a digest, or what a tag pointed to for a time."""
    viewer()
    form = RecallFilter(request.args)
    if form.is_empty:
        return render_template("analysis/recall.html", form=RecallFilter(MultiDict()), page=None)
    if not form.validate():
        return render_template("analysis/recall.html", form=form, page=None), 400
    found = find_recall(form)
    listing = recall_listing(form, found)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), lists.PAGE_SIZE)
    count = listing.count(lists.PAGE_COUNT_CAP)
    return render_template("analysis/recall.html", form=form, found=found, page=page, count=count)


def find_recall(form: RecallFilter) -> Recall:
    """What a valid form asks for."""
    stores, scope = runtime().stores, viewer().scope
    if form.digest.data:
        return recall_digest(stores, scope, form.digest.data)
    registry = form.registry.data or runtime().settings.registries[0].name
    return recall_tag(
        stores,
        scope,
        registry,
        form.repository.data,
        form.tag.data,
        form.since.data,
        form.until.data,
    )


def recall_listing(form: RecallFilter, found: Recall | None = None) -> Listing:
    """Who has it, newest first."""
    rows = (found or find_recall(form)).consumers

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page, more = lists.slice_of(rows, _consumer_key, cursor, limit, newest_first=True)
        return Page([fields_of(row) for row in page], more)

    return Listing(
        "recall", Consumer.__struct_fields__, find, lambda cap: lists.count_of(rows, cap)
    )


def _consumer_key(row: Consumer) -> str:
    who = "\n".join((row.actor, row.address, row.client, row.repository, row.registry))
    return f"{row.last.isoformat()} {who}"


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
