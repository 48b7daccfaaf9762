"""Figures over time for one viewer: the dashboard's, and those of one repository, tag or digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from heapq import nsmallest
from typing import Any

import msgspec
from flask import url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _

from app.rules.usage import CHECK, DELETE, PULL, PUSH, Counts, Span, Sums, days_between
from app.store.catalogue import CatalogueQuery
from app.store.events import CONTENT, NONE, address_key
from app.store.paging import Count, Page
from app.store.usage import Proof, Puller, UsageQuery, Who
from app.web.charts import Chart, Column, Series
from app.web.forms import UsageFilter
from app.web.lists import Listing, fields_of, page_url
from app.web.runtime import runtime
from app.web.signin import viewer
from app.web.texts import show

MAX_HOURLY_DAYS = 2
TOP = 10
MAX_NEW_TAGS = 1_000_000
MAX_PULLERS = 20
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
    """One line of a top list; `filters` select its records, None where no filter can."""

    name: str
    pulls: int
    pushes: int
    filters: dict[str, str] | None


class Figures(msgspec.Struct, frozen=True):
    """The dashboard's figures for one viewer; `before` are those of the period of equal length."""

    first: date
    last: date
    time_zone: str
    totals: dict[str, int]
    before: dict[str, int]
    slots: Sequence[Slot]
    slots_before: Sequence[Slot]  # none where their hours are not known
    hourly: bool  # whether the slots are hours
    tops: dict[str, Sequence[Top]]
    missing: Sequence[date]  # days that are being prepared and are not in any figure

    @property
    def chart(self) -> Chart:
        """The slots as bars by action."""
        return _by_action(self.slots, self.slots_before)

    @property
    def lacks_hours(self) -> bool:
        """Whether days are shown as the hours of a short period are not known."""
        return not self.hourly and (self.last - self.first).days < MAX_HOURLY_DAYS


class Recent(msgspec.Struct, frozen=True):
    """The last 30 days of one repository, tag or digest; `link` makes the URL of the records."""

    first: date
    last: date
    time_zone: str
    pulls: int
    pushes: int
    slots: Sequence[Slot]
    missing: Sequence[date]
    supplements: bool  # whether they count
    link: Callable[..., str]
    pullers: Sequence[tuple[Who, Puller]]  # the last first, at most MAX_PULLERS
    more_pullers: int
    tags: Mapping[str, Sequence[int]]  # pulls of each day, by tag
    last_pulls: Mapping[str, Proof]  # by tag
    hourly: bool = False

    @property
    def chart(self) -> Chart:
        """The slots as bars by action."""
        return _by_action(self.slots)


class DailyPulls(msgspec.Struct, frozen=True):
    """The pulls of each of the last 30 days, by registry and repository.

    Those from `until` on are not counted, where it is not None, nor are those of `missing` days.
    """

    days: Mapping[tuple[str, str], Sequence[int]]
    until: datetime | None
    missing: Sequence[date]


def find_recent(*, supplements: bool = False, **filters: str) -> Recent:
    """What happened in the last 30 days to what `registry`, `repository`, `tag`, `digest` name.

    Of a repository without what only supplements its images, but for `supplements`.
    """
    stores, now = runtime().stores, datetime.now(UTC)
    first, last = recent_days(now)
    wanted: dict[str, Any] = dict(filters)
    query = UsageQuery(first=first, last=last, supplements=supplements, **wanted)
    of_kind = {} if supplements else {"kind": CONTENT}
    use = stores.usage.read_use(query, viewer().scope, now)
    pullers = sorted(use.pullers.items(), key=lambda one: (one[1].last, one[0]), reverse=True)
    days = list(days_between(first, last))
    return Recent(
        first=first,
        last=last,
        time_zone=stores.days.calendar.zone,
        pulls=use.sums.counts[PULL],
        pushes=use.sums.counts[PUSH],
        slots=_days(use.sums, query),
        missing=use.sums.missing,
        supplements=supplements,
        link=records_linker({**filters, **of_kind}, first, last),
        pullers=pullers[:MAX_PULLERS],
        more_pullers=max(0, len(pullers) - MAX_PULLERS),
        tags={tag: [found.get(day, 0) for day in days] for tag, found in use.tag_days.items()},
        last_pulls=use.last_pulls,
    )


def find_daily_pulls(
    repositories: Iterable[tuple[str, str]], *, only_closed: bool = False
) -> DailyPulls:
    """The pulls of some repositories (registry, name) in the last 30 days, without supplements'.

    Reads the sums of days, as the dashboard does, of no more namespaces than it must. With
    `only_closed` not the events of the newest hours, which cost as much as all that is closed.
    """
    wanted, stores, now = set(repositories), runtime().stores, datetime.now(UTC)
    first, last = recent_days(now)
    scope = viewer().scope.near(name for _, name in wanted)
    query = UsageQuery(first=first, last=last)
    lines = stores.usage.read_lines(
        "repositories", wanted, query, scope, now, only_closed=only_closed
    )
    days = {
        key: [lines.days.get(key, {}).get(day, (0, 0))[0] for day in days_between(first, last)]
        for key in wanted
    }
    return DailyPulls(days, lines.until, lines.missing)


def recent_days(now: datetime) -> tuple[date, date]:
    """The first and the last of the days that pages call the last 30."""
    last = runtime().stores.days.calendar.day_of(now)
    return last - timedelta(days=RECENT_DAYS - 1), last


def find_figures(form: UsageFilter) -> Figures:
    """The figures that a valid form selects."""
    stores, scope, now = runtime().stores, viewer().scope, datetime.now(UTC)
    calendar = stores.days.calendar
    first, last = form.period(calendar.day_of(now))
    query = form.query(first, last)
    query_before = form.query(*period_before(first, last))
    found = stores.usage.read_sums(query, scope, now)
    before = stores.usage.read_sums(query_before, scope, now, tops=("repositories",))
    is_short = (last - first).days < MAX_HOURLY_DAYS
    hours = stores.usage.read_hours(query, scope, now) if is_short else None
    hours_before = {} if hours is None else stores.usage.read_hours(query_before, scope, now)
    return Figures(
        first=first,
        last=last,
        time_zone=calendar.zone,
        totals=_totals(found, query),
        before=_totals(before, query_before),
        slots=_days(found, query) if hours is None else _hours(hours),
        slots_before=_days(before, query_before) if hours is None else _hours(hours_before or {}),
        hourly=hours is not None,
        tops=_tops(found),
        missing=[*before.missing, *found.missing],
    )


def period_before(first: date, last: date) -> tuple[date, date]:
    """The period of equal length before these days."""
    return first - (last - first + timedelta(days=1)), first - timedelta(days=1)


def _totals(found: Sums, query: UsageQuery) -> dict[str, int]:
    counts = found.counts
    totals = {
        "pushes": counts[PUSH],
        "pulls": counts[PULL],
        "checks": counts[CHECK],
        "deletes": counts[DELETE],
        "repositories": len(found.tops["repositories"]),
        "bytes_pushed": found.bytes_pushed,
    }
    if (query.actor, query.clients, query.tag, query.digest) == (None,) * 4:
        calendar = runtime().stores.days.calendar
        new = CatalogueQuery(
            registry=query.registry,
            namespace=query.namespace,
            repository=query.repository,
            since=calendar.start_of(query.first),
            until=calendar.end_of(query.last),
            deleted=True,
        )
        tags = runtime().stores.catalogue.count("tag", new, viewer().scope, cap=MAX_NEW_TAGS)
        totals["new_tags"] = tags.number
    return totals


def _hours(hours: Mapping[Span, Counts]) -> list[Slot]:
    local = runtime().stores.days.calendar.local
    return [_slot(local(hour.start), local(hour.end), counts) for hour, counts in hours.items()]


def _days(found: Sums, query: UsageQuery) -> list[Slot]:
    calendar = runtime().stores.days.calendar
    return [
        _slot(
            calendar.local(calendar.start_of(day)),
            calendar.local(calendar.end_of(day)),
            found.days.get(day, {}),
        )
        for day in days_between(query.first, query.last)
    ]


def _slot(start: datetime, end: datetime, counts: Counts) -> Slot:
    pushes, pulls, checks, deletes = (counts.get(key, 0) for key in (PUSH, PULL, CHECK, DELETE))
    return Slot(start, end, pushes, pulls, checks, deletes)


_ACTIONS = (
    Series("pull", _("Pulls"), PULL, {}),
    Series("push", _("Pushes"), PUSH, {}),
    Series("check", _("Checks"), CHECK, {}),
    Series("delete", _("Deletes"), DELETE, {}),
)


def _by_action(slots: Sequence[Slot], before: Sequence[Slot] = ()) -> Chart:
    def columns(slots: Sequence[Slot]) -> list[Column]:
        return [
            Column(slot.start, slot.end, (slot.pulls, slot.pushes, slot.checks, slot.deletes))
            for slot in slots
        ]

    return Chart(_ACTIONS, columns(slots), columns(before))


_FILTERS = {  # of the records behind a line of a top list, in the order of its key
    "repositories": ("registry", "repository"),
    "tags": ("registry", "repository", "tag"),
    "accounts": ("actor",),
    "clients": ("client",),
    "addresses": ("address",),
}


def _tops(found: Sums) -> dict[str, Sequence[Top]]:
    """The most pulled (then pushed) of each kind, ten at most."""
    return {
        kind: [
            Top(_name(kind, key), pulls, pushes, _filters(kind, key))
            for key, (pulls, pushes) in nsmallest(TOP, lines.items(), key=_by_pulls)
        ]
        for kind, lines in found.tops.items()
    }


def top_repositories(found: Sums) -> Sequence[Top]:
    """The most pulled repositories, ten at most."""
    return _tops(found)["repositories"]


def _by_pulls(line: tuple[tuple[str, ...], tuple[int, int]]) -> tuple[int, int, tuple[str, ...]]:
    key, (pulls, pushes) = line
    return -pulls, -pushes, key


def _name(kind: str, key: tuple[str, ...]) -> str:
    if kind == "accounts":
        return key[0] or gettext("anonymous")
    if kind == "clients":
        return show(key[0])
    return f"{key[1]}:{key[2]}" if kind == "tags" else key[-1]


def _filters(kind: str, key: tuple[str, ...]) -> dict[str, str] | None:
    """That of requests without account is `-`. A form strips names, and an address is an IP."""
    if any(name == NONE or name != name.strip() for name in key):
        return None
    if kind == "addresses" and address_key(key[0]) is None:
        return None
    return {field: name or NONE for field, name in zip(_FILTERS[kind], key, strict=True)}


def records_linker(filters: Mapping[str, str], first: date, last: date) -> Callable[..., str]:
    """A function that makes the URL of the records behind a figure of these days."""
    calendar = runtime().stores.days.calendar
    begin, over = calendar.start_of(first), calendar.end_of(last)

    def link(
        action: str, start: datetime | None = None, end: datetime | None = None, **more: str
    ) -> str:
        times = {"from": _utc(start or begin), "to": _utc(end or over)}
        return page_url("analysis.records", **{**filters, "action": action, **more, **times})

    return link


def linker_before(form: UsageFilter, figures: Figures) -> Callable[..., str]:
    """The same for the figures of the period before."""
    return records_linker(form.record_filters(), *period_before(figures.first, figures.last))


def new_tags_url(form: UsageFilter, figures: Figures) -> str:
    """The URL of the tags that were pushed for the first time."""
    calendar, filters = runtime().stores.days.calendar, form.record_filters()
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
