"""Figures over time for one viewer: the dashboard's, and those of one repository, tag or digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from flask import url_for

from app.store.catalogue import CatalogueQuery
from app.store.events import NONE
from app.store.paging import Count, Page
from app.store.usage import UsageQuery
from app.usage import PULL, PUSH, Row, Total, days_between, total_by
from app.web.forms import UsageFilter
from app.web.lists import Listing, fields_of
from app.web.runtime import runtime
from app.web.signin import viewer

MAX_HOURLY_DAYS = 2
TOP = 10
MAX_NEW_TAGS = 1_000_000
RECENT_DAYS = 30  # of the page of a repository, tag or digest


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


class Recent(msgspec.Struct, frozen=True):
    """The last 30 days of one repository, tag or digest; `link` makes the URL of the records."""

    first: date
    last: date
    time_zone: str
    pulls: int
    pushes: int
    slots: Sequence[Slot]
    missing: Sequence[date]
    link: Callable[..., str]
    hourly: bool = False


def find_recent(**filters: str) -> Recent:
    """What happened in the last 30 days to what `registry`, `repository`, `tag`, `digest` name."""
    usage, now = runtime().stores.usage, datetime.now(UTC)
    last = usage.calendar.day_of(now)
    first = last - timedelta(days=RECENT_DAYS - 1)
    wanted: dict[str, Any] = dict(filters)
    query = UsageQuery(first=first, last=last, **wanted)
    found = usage.read(query, viewer().scope, now)
    total = Total()
    for row in found.rows:
        total.add(row)
    return Recent(
        first=first,
        last=last,
        time_zone=usage.calendar.zone,
        pulls=total.pulls,
        pushes=total.pushes,
        slots=_slots(found.rows, query),
        missing=found.missing,
        link=records_linker(filters, first, last),
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
        new = CatalogueQuery(
            registry=query.registry,
            namespace=query.namespace,
            repository=query.repository,
            since=calendar.start_of(query.first),
            until=calendar.end_of(query.last),
            deleted=True,
        )
        found = runtime().stores.catalogue.count("tag", new, viewer().scope, cap=MAX_NEW_TAGS)
        totals["new_tags"] = found.number
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


def records_linker(filters: Mapping[str, str], first: date, last: date) -> Callable[..., str]:
    """A function that makes the URL of the records behind a figure of these days."""
    calendar = runtime().stores.usage.calendar
    begin, over = calendar.start_of(first), calendar.end_of(last)

    def link(
        action: str, start: datetime | None = None, end: datetime | None = None, **more: str
    ) -> str:
        times = {"from": _utc(start or begin), "to": _utc(end or over)}
        arguments: dict[str, Any] = {**filters, "action": action, **more, **times}
        return url_for("analysis.records", **arguments)

    return link


def new_tags_url(form: UsageFilter, figures: Figures) -> str:
    """The URL of the tags that were pushed for the first time."""
    calendar, filters = runtime().stores.usage.calendar, form.record_filters()
    names = ("registry", "namespace", "repository")
    arguments: dict[str, Any] = {name: filters[name] for name in names if name in filters}
    arguments["from"] = _utc(calendar.start_of(figures.first))
    arguments["to"] = _utc(calendar.end_of(figures.last))
    return url_for("search.tags", deleted=1, **arguments)


def slot_listing(figures: Figures) -> Listing:
    """The days (or hours) of the figures, for an export."""
    rows = [fields_of(slot) for slot in figures.slots]
    return Listing(
        "usage", Slot.__struct_fields__, lambda _cursor, _limit: Page(rows), lambda _cap: Count(0)
    )


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
