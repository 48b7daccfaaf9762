"""The figures of a period: of closed days as they were summarised, of others from the events."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from pymongo.collection import Collection
from pymongo.database import Database

from app.rules.usage import (
    COUNTED,
    PULL,
    PULL_PART,
    TOPS,
    Counts,
    Row,
    Span,
    Sums,
    add_counts,
    days_between,
)
from app.store.errors import translate_errors
from app.store.paging import Document, chunks, select
from app.store.scope import Scope
from app.store.usage.counting import CAME, bounds_of, count_rows, is_in_time
from app.store.usage.days import DayStore
from app.store.usage.documents import add_document, day_of, rows_of
from app.store.usage.queries import Image, Usage, UsageQuery, matches, parts_of, split

Found = TypeVar("Found")

# That one page makes from the events of days that are not closed, and what an open time has more:
# each is counted whole.
MAX_LIVE_ROWS = 20_000


class Cover(NamedTuple):
    """How the figures of a period are found: `runs` of what is closed, by key; the rest is open.

    The events of `removed` days are gone: their figures are in the summaries alone.
    """

    runs: dict[str, str]
    open: list[Span]
    removed: list[date]


@translate_errors
class UsageStore:
    """What happened, by row and added up; reads `usage`, `usage_sums` and the events."""

    def __init__(self, database: Database[Document], days: DayStore) -> None:
        self._events: Collection[Document] = database["events"]
        self._usage: Collection[Document] = database["usage"]
        self._sums: Collection[Document] = database["usage_sums"]
        self._days = days
        self.max_live_rows = MAX_LIVE_ROWS

    def read(self, query: UsageQuery, scope: Scope, now: datetime) -> Usage:
        """The rows of a period that the scope allows, in no order.

        Days that are not closed are counted from the events, newest first until that becomes too
        much for a page; the others are `missing`.
        """

        def read(cover: Cover) -> Usage:
            rows, missing = self._find_rows(cover, query, scope)
            return Usage(list(rows), missing)

        return self._settled(query, now, read)

    def find_images(
        self,
        query: UsageQuery,
        scope: Scope,
        now: datetime,
        actions: Container[str] = (PULL, PULL_PART),
    ) -> tuple[set[Image], Sequence[date]]:
        """What `actions` happened to in a period, and the `missing` days; as `read`.

        By whom and how often is not kept: that would be most of what the rows of months take.
        """

        def read(cover: Cover) -> tuple[set[Image], Sequence[date]]:
            rows, missing = self._find_rows(cover, query, scope)
            found = (row for row in rows if row.action in actions)
            return {(row.registry, row.repository, row.tag, row.digest) for row in found}, missing

        return self._settled(query, now, read)

    def _find_rows(
        self, cover: Cover, query: UsageQuery, scope: Scope
    ) -> tuple[Iterator[Row], list[date]]:
        closed = self._read_rows(cover, parts_of(query, scope, "digests"))
        made, missing = self._make_rows(cover, parts_of(query, scope))
        return (row for row in chain(closed, made) if matches(row, query)), missing

    def read_sums(
        self, query: UsageQuery, scope: Scope, now: datetime, *, tops: Sequence[str] = tuple(TOPS)
    ) -> Sums:
        """What happened in a period, added up; as `read` for days that are not closed.

        `tops` are the lists that are wanted. Cheap, but for one repository, tag or digest, for
        what needs account and client, and for repositories that are not a whole namespace: there
        the rows are added up.
        """

        def read(cover: Cover) -> Sums:
            sums = Sums()
            named, parts = split(query, scope)
            fields = dict.fromkeys(("day", "run", "registry", "counts", "bytes", *tops), 1)
            for document in self._read_sums(cover, query, named, fields):
                add_document(sums, document, tops)
            made, sums.missing = self._make_rows(cover, parts_of(query, scope))
            for row in chain(self._read_rows(cover, parts), made):
                if matches(row, query):
                    sums.add(row)
            return sums

        return self._settled(query, now, read)

    def read_hours(
        self, query: UsageQuery, scope: Scope, now: datetime
    ) -> dict[Span, Counts] | None:
        """How often what happened in each hour of a few days, in order.

        None where only events tell, and they are removed or too many for a page.
        """

        def read(cover: Cover) -> dict[Span, Counts] | None:
            named, parts = split(query, scope)
            hours: dict[Span, Counts] = {hour: {} for hour in wanted}
            fields = dict.fromkeys(("day", "run", "registry", "hours"), 1)
            for document in self._read_sums(cover, query, named, fields):
                of_day = self._days.calendar.hours_of(day_of(document["day"]))
                for number, counts in document.get("hours", ()):
                    if number < len(of_day):  # a day of another time zone may have been longer
                        add_counts(hours[of_day[number]], counts)
            if parts and cover.removed:
                return None
            rows = 0
            for hour, found in hours.items():
                is_open = any(span.start <= hour.start < span.end for span in cover.open)
                chosen = parts_of(query, scope) if is_open or query.digest else parts
                for _, row in self._count(chosen, hour):
                    rows += 1
                    if row.action in COUNTED and matches(row, query):
                        add_counts(found, {row.action: row.number})
                if rows >= self.max_live_rows:
                    return None
            return hours

        days = days_between(query.first, query.last)
        wanted = [hour for day in days for hour in self._days.calendar.hours_of(day)]
        return self._settled(query, now, read)

    def find_last_pulls(
        self, repositories: Iterable[str], scope: Scope, now: datetime, clients: frozenset[str]
    ) -> dict[tuple[str, str, str], Row]:
        """The newest pull of every tag and every digest of some repositories.

        By registry, repository, and tag or digest. Only pulls by `clients` (classes) count.
        """
        query = UsageQuery(first=date.min, last=date.max, clients=clients)
        parts = [part for name in repositories for part in scope.within(name)]

        def read(cover: Cover) -> dict[tuple[str, str, str], Row]:
            found: dict[tuple[str, str, str], Row] = {}
            made, _ = self._make_rows(cover, parts)
            for row in chain(self._read_rows(cover, parts), made):
                if row.action != PULL or not matches(row, query):
                    continue
                for name in (row.tag, row.digest):
                    key = (row.registry, row.repository, name or "")
                    if key not in found or row.last > found[key].last:
                        found[key] = row
            return found

        return self._settled(query, now, read)

    def find_open_registries(self, query: UsageQuery, now: datetime) -> set[str]:
        """The registries of which something came in time on days that are not closed yet."""

        def read(cover: Cover) -> set[str]:
            bounds = map(bounds_of, cover.open)
            events = (event for bound in bounds for event in self._events.find(bound, CAME))
            return {event["registry"] for event in events if is_in_time(event)}

        return self._settled(query, now, read)

    # What is closed, and what is open

    def _settled(self, query: UsageQuery, now: datetime, read: Callable[[Cover], Found]) -> Found:
        """What `read` finds while nothing is closed or opened."""
        last = min(query.last, self._days.calendar.day_of(now))
        first = self._days.find_first_day()
        if first is None or last < max(first, query.first):
            return read(Cover({}, [], []))
        days = list(days_between(max(first, query.first), last))
        cover = self._cover(days)
        for _ in range(3):
            found = read(cover)
            before, cover = cover, self._cover(days)
            if cover == before:
                break
        return found

    def _cover(self, days: Sequence[date]) -> Cover:
        states = self._days.find_states(days[0], days[-1])
        cover = Cover({}, [], [])
        for day in days:
            state = states.get(day.isoformat())
            if state and state.get("removed"):
                cover.removed.append(day)
            if run := self._days.run_of(state):
                cover.runs[day.isoformat()] = run
            elif state or not any(hour.key in states for hour in self._days.calendar.hours_of(day)):
                cover.open.append(self._days.calendar.span_of(day))
            else:
                self._cover_hours(cover, day, states)
        return cover

    def _cover_hours(self, cover: Cover, day: date, states: Mapping[str, Document]) -> None:
        for hour in self._days.calendar.hours_of(day):
            if run := self._days.run_of(states.get(hour.key)):
                cover.runs[hour.key] = run
            elif cover.open and cover.open[-1].end == hour.start:
                cover.open[-1] = cover.open[-1]._replace(end=hour.end)
            else:
                cover.open.append(hour)

    def _make_rows(
        self, cover: Cover, parts: Sequence[dict[str, Any]]
    ) -> tuple[list[Row], list[date]]:
        """Rows of what is open, made from the events; and the days for which that is too much."""
        rows: list[Row] = []
        spans = list(cover.open)
        while spans and len(rows) < self.max_live_rows:
            span = spans.pop()
            rows += (row for _, row in self._count(parts, span))
        return rows, sorted({span.day for span in spans})

    def _count(self, parts: Iterable[dict[str, Any]], span: Span) -> Iterator[tuple[str, Row]]:
        return count_rows(self._events, self._days.calendar, parts, span)

    def _read_rows(self, cover: Cover, parts: Iterable[dict[str, Any]]) -> Iterator[Row]:
        if not cover.runs:
            return
        for part in parts:
            for document in select(self._usage, part, _bounds(cover)):
                if cover.runs.get(document["day"]) == document["run"]:
                    yield from rows_of(document)

    def _read_sums(
        self, cover: Cover, query: UsageQuery, named: Sequence[str], fields: dict[str, int]
    ) -> Iterator[Document]:
        if not cover.runs:
            return
        for chunk in chunks(named):
            of: Any = chunk[0] if len(chunk) == 1 else {"$in": chunk}
            for document in self._sums.find({"of": of, **_bounds(cover)}, fields):
                is_wanted = query.registry in (None, document["registry"])
                if is_wanted and cover.runs.get(document["day"]) == document["run"]:
                    yield document


def _bounds(cover: Cover) -> dict[str, Any]:
    return {"day": {"$gte": min(cover.runs), "$lte": max(cover.runs)}}
