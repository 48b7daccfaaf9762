"""The figures of a period: of closed days as they were summarised, of others from the events."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database

from app.rules.usage import (
    CHECK,
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
from app.store.usage.counting import CAME, Place, bounds_of, count_rows, is_in_time
from app.store.usage.days import DayStore, is_whole
from app.store.usage.documents import add_document, day_of, rows_of
from app.store.usage.pullers import Proof, Use, proof_of
from app.store.usage.queries import (
    Image,
    Usage,
    UsageQuery,
    asked,
    hidden_lists,
    matches,
    parts_of,
    split,
)

Found = TypeVar("Found")
Heard = dict[str, tuple[date, date]]  # first and last day, by registry

DAY = timedelta(days=1)

# That one page makes from the events of days that are not closed, and what an open time has more:
# each is counted whole.
MAX_LIVE_ROWS = 20_000


class Cover(NamedTuple):
    """How the figures of a period are found: `runs` of what is closed, by key; the rest is open.

    Days without events are in neither. The events of `removed` days are gone: their figures are in
    the summaries alone. `registries` were heard of on closed days, by key.
    """

    runs: dict[str, str]
    open: list[Span]
    removed: list[date]
    registries: dict[str, Sequence[str]]


class Lines(NamedTuple):
    """Pulls and pushes by day of some lines of a top list, by the key of the line.

    What happened from `until` on is not counted, where that is not None; nor are `missing` days.
    """

    days: dict[Any, dict[date, tuple[int, int]]]
    until: datetime | None
    missing: Sequence[date]


class Images(NamedTuple):
    """What something happened to in a period, with the last day of it.

    Not on `missing` days, which are being prepared.
    `heard` are the first and the last day on which any event of a registry came in time.
    """

    found: dict[Image, date]
    heard: Heard
    missing: Sequence[date]


class Newest(NamedTuple):
    """The newest pull and check of something, by anybody, and its newest use."""

    pull: Proof | None = None
    check: Proof | None = None
    use: Proof | None = None


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
        self, query: UsageQuery, scope: Scope, now: datetime, is_wanted: Callable[[Row], bool]
    ) -> Images:
        """What the rows of a period are about that `is_wanted`; as `read` for what is missing.

        By whom and how often is not kept: that would be most of what the rows of months take.
        """

        def read(cover: Cover) -> Images:
            heard: Heard = {}
            found: dict[Image, date] = {}
            closed = self._read_rows(cover, parts_of(query, scope, "digests"), heard)
            made, missing = self._make_rows(cover, parts_of(query, scope), heard)
            for row in chain(closed, made):
                if matches(row, query) and is_wanted(row):
                    image = (row.registry, row.repository, row.tag, row.digest)
                    found[image] = max(row.day, found.get(image, row.day))
            return Images(found, heard, missing)

        return self._settled(query, now, read)

    def _find_rows(
        self, cover: Cover, query: UsageQuery, scope: Scope
    ) -> tuple[Iterator[Row], list[date]]:
        closed = self._read_rows(cover, parts_of(query, scope, "digests"))
        made, missing = self._make_rows(cover, parts_of(query, scope))
        return (row for row in chain(closed, made) if matches(row, query)), missing

    def read_sums(
        self,
        query: UsageQuery,
        scope: Scope,
        now: datetime,
        *,
        tops: Sequence[str] = tuple(TOPS),
        only_summed: bool = False,
    ) -> Sums:
        """What happened in a period, added up; as `read` for days that are not closed.

        `tops` are the lists that are wanted. Cheap, but for one repository, tag or digest, for
        what needs account and client, and for repositories that are not a whole namespace: there
        the rows are added up. With `only_summed` that is left out, as is what is open just now.

        A top list that would tell of other people has the account's own pulls and pushes alone.
        """
        query, scope = asked(query, scope)

        def read(cover: Cover) -> Sums:
            sums = Sums()
            named, parts = split(query, scope)
            fields = dict.fromkeys(("day", "run", "registry", "counts", "bytes", *tops), 1)
            for document in self._read_sums(cover, query, named, fields):
                add_document(sums, document, tops)
            if only_summed:
                return sums
            made, sums.missing = self._make_rows(cover, parts_of(query, scope))
            for row in chain(self._read_rows(cover, parts), made):
                if matches(row, query):
                    sums.add(row)
            return sums

        cover = self._cover(query.first, query.last) if only_summed else None
        found = read(cover) if cover else self._settled(query, now, read)
        hidden = hidden_lists(query, scope)
        found.tops |= {name: {} for name in hidden}
        own = [name for name in hidden if name in tops]
        if own and scope.account and query.actor is None:
            mine = msgspec.structs.replace(query, actor=scope.account)
            lists = self.read_sums(mine, scope, now, tops=own, only_summed=only_summed).tops
            found.tops |= {name: lists[name] for name in own}
        return found

    def read_lines(
        self,
        top: str,
        wanted: Container[Any],
        query: UsageQuery,
        scope: Scope,
        now: datetime,
        *,
        only_closed: bool = False,
    ) -> Lines:
        """What happened on each day to the `wanted` lines of a top list that names nobody else.

        With `only_closed` the newest hours are left out where older ones are closed: most of what
        a page costs is to count their events.
        """
        query, scope = asked(query, scope)
        assert top not in hidden_lists(query, scope)

        def read(cover: Cover) -> Lines:
            until = _end_of_closed(cover) if only_closed else None
            sums: dict[date, Sums] = {}
            named, parts = split(query, scope)
            fields = dict.fromkeys(("day", "run", "registry", top), 1)
            for document in self._read_sums(cover, query, named, fields):
                add_document(sums.setdefault(day_of(document["day"]), Sums()), document, (top,))
            made: list[Row] = []
            missing = sorted({span.day for span in cover.open if until and span.end <= until})
            if until is None:
                made, missing = self._make_rows(cover, parts_of(query, scope))
            for row in chain(self._read_rows(cover, parts), made):
                if matches(row, query):
                    sums.setdefault(row.day, Sums()).add(row)
            days: dict[Any, dict[date, tuple[int, int]]] = {}
            for day, found in sums.items():
                for key, numbers in found.tops[top].items():
                    if key in wanted:
                        days.setdefault(key, {})[day] = numbers
            return Lines(days, until, missing)

        return self._settled(query, now, read)

    def read_address(
        self, address: str, days: Iterable[date], scope: Scope, now: datetime
    ) -> list[Row]:
        """What came from an address on some days, without what the viewer may not locate."""
        found: list[Row] = []
        for day in days:
            period = UsageQuery(first=day, last=day, supplements=True)
            rows = self.read(period, scope, now).rows
            found += (r for r in rows if r.address == address and scope.may_locate(r.actor))
        return found

    def read_use(self, query: UsageQuery, scope: Scope, now: datetime) -> Use:
        """What happened to one repository, tag or digest, and who pulled it; as `read`."""

        def read(cover: Cover) -> Use:
            use = Use(scope, parts=bool(query.digest))
            rows, use.sums.missing = self._find_rows(cover, query, scope)
            for row in rows:
                use.add(row)
            return use

        return self._settled(query, now, read)

    def read_hours(
        self, query: UsageQuery, scope: Scope, now: datetime, *, max_open: timedelta | None = None
    ) -> dict[Span, Counts] | None:
        """How often what happened in each hour of a few days, in order.

        None where only events tell, and they are removed or too many for a page. With `max_open`
        it may be many days: None also where events of more time than that must be counted.
        """
        query, scope = asked(query, scope)

        def read(cover: Cover) -> dict[Span, Counts] | None:
            named, parts = split(query, scope)
            if _is_beyond(cover, parts, max_open):
                return None
            hours: dict[Span, Counts] = {hour: {} for hour in wanted}
            fields = dict.fromkeys(("day", "run", "registry", "hours"), 1)
            for document in self._read_sums(cover, query, named, fields):
                of_day = self._days.calendar.hours_of(day_of(document["day"]))
                for number, counts in document.get("hours", ()):
                    if number < len(of_day):  # a day of another time zone may have been longer
                        add_counts(hours[of_day[number]], counts)
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

    def find_newest(
        self,
        repositories: Iterable[str],
        scope: Scope,
        now: datetime,
        is_use: Callable[[Row], bool],
    ) -> dict[tuple[str, str, str], Newest]:
        """The newest pull, check and use of every tag and every digest of some repositories.

        By registry, repository, and tag or digest. A pull of an index is one of the children that
        were pulled with it.
        """
        parts = [part for name in repositories for part in scope.within(name)]

        def read(cover: Cover) -> dict[tuple[str, str, str], Newest]:
            found: dict[tuple[str, str, str], Newest] = {}
            made, _ = self._make_rows(cover, parts)
            for row in chain(self._read_rows(cover, parts), made):
                for name in {row.tag, row.digest} - {None}:
                    key = (row.registry, row.repository, name or "")
                    found[key] = _newer(found.get(key, Newest()), row, scope, is_use)
            return found

        return self._settled(UsageQuery(first=date.min, last=date.max), now, read)

    def find_heard_before(
        self, day: date, registries: Iterable[str], scope: Scope, now: datetime
    ) -> dict[str, date]:
        """The newest day before `day` on which an event of each registry came in time.

        Of what the scope allows. A registry without one is not in it.
        """
        wanted = set(registries)

        def read(cover: Cover) -> dict[str, date]:
            heard: Heard = {}
            times, few = _newest_first(cover), 1
            while times and not wanted <= heard.keys():
                self._hear(heard, _only(cover, times[:few], wanted - heard.keys()), scope)
                times, few = times[few:], 2 * few
            return {name: last for name, (_, last) in heard.items() if name in wanted}

        return self._settled(UsageQuery(first=date.min, last=day - DAY), now, read)

    def _hear(self, heard: Heard, cover: Cover, scope: Scope) -> None:
        fields = dict.fromkeys(("day", "run", "registry", "heard"), 1)
        for document in self._read_documents(cover, scope.queries, fields):
            _note_heard(heard, document)
        for span in cover.open:
            for part in scope.queries:
                for event in select(self._events, part, bounds_of(span), CAME):
                    if is_in_time(event):
                        _add_heard(heard, event["registry"], span.day)

    # What is closed, and what is open

    def _settled(self, query: UsageQuery, now: datetime, read: Callable[[Cover], Found]) -> Found:
        """What `read` finds while nothing is closed or opened."""
        last = min(query.last, self._days.calendar.day_of(now))
        cover = self._cover(query.first, last)
        for _ in range(3):
            found = read(cover)
            before, cover = cover, self._cover(query.first, last)
            if cover == before:
                break
        return found

    def _cover(self, first: date, last: date) -> Cover:
        states = self._days.find_states(first, last)
        cover = Cover({}, [], [], {})
        for day, state in self._days.days_of(states):
            if state.get("removed"):
                cover.removed.append(day)
            if run := self._days.run_of(state):
                cover.runs[day.isoformat()] = run
                cover.registries[day.isoformat()] = state.get("registries", ())
            elif is_whole(state) or not any(
                hour.key in states for hour in self._days.calendar.hours_of(day)
            ):
                cover.open.append(self._days.calendar.span_of(day))
            else:
                self._cover_hours(cover, day, states)
        return cover

    def _cover_hours(self, cover: Cover, day: date, states: Mapping[str, Document]) -> None:
        for hour in self._days.calendar.hours_of(day):
            if run := self._days.run_of(states.get(hour.key)):
                cover.runs[hour.key] = run
                cover.registries[hour.key] = states[hour.key].get("registries", ())
            elif cover.open and cover.open[-1].end == hour.start:
                cover.open[-1] = cover.open[-1]._replace(end=hour.end)
            else:
                cover.open.append(hour)

    def _make_rows(
        self, cover: Cover, parts: Sequence[dict[str, Any]], heard: Heard | None = None
    ) -> tuple[list[Row], list[date]]:
        """Rows of what is open, made from the events; and the days for which that is too much."""
        rows: list[Row] = []
        spans = list(cover.open)
        while spans and len(rows) < self.max_live_rows:
            span = spans.pop()
            places: set[Place] | None = None if heard is None else set()
            rows += (row for _, row in self._count(parts, span, places))
            if heard is not None:
                for registry, *_ in places or ():
                    _add_heard(heard, registry, span.day)
        return rows, sorted({span.day for span in spans})

    def _count(
        self, parts: Iterable[dict[str, Any]], span: Span, heard: set[Place] | None = None
    ) -> Iterator[tuple[str, Row]]:
        return count_rows(self._events, self._days.calendar, parts, span, heard)

    def _read_rows(
        self, cover: Cover, parts: Iterable[dict[str, Any]], heard: Heard | None = None
    ) -> Iterator[Row]:
        for document in self._read_documents(cover, parts):
            if heard is not None:
                _note_heard(heard, document)
            yield from rows_of(document)

    def _read_documents(
        self, cover: Cover, parts: Iterable[dict[str, Any]], fields: dict[str, int] | None = None
    ) -> Iterator[Document]:
        if not cover.runs:
            return
        for part in parts:
            for document in select(self._usage, part, _bounds(cover), fields):
                if cover.runs.get(document["day"]) == document["run"]:
                    yield document

    def _read_sums(
        self, cover: Cover, query: UsageQuery, named: Sequence[str], fields: dict[str, int]
    ) -> Iterator[Document]:
        if not cover.runs:
            return
        for chunk in chunks(named, 5):  # each has a row for every day
            of: Any = chunk[0] if len(chunk) == 1 else {"$in": chunk}
            for document in self._sums.find({"of": of, **_bounds(cover)}, fields):
                is_wanted = query.registry in (None, document["registry"])
                if is_wanted and cover.runs.get(document["day"]) == document["run"]:
                    yield document


def _bounds(cover: Cover) -> dict[str, Any]:
    return {"day": {"$gte": min(cover.runs), "$lte": max(cover.runs)}}


def _end_of_closed(cover: Cover) -> datetime | None:
    """Up to when all is closed but for older days; None where nothing is, or nothing is open."""
    newest = max(map(day_of, cover.runs), default=None)
    open_since = [span.start for span in cover.open if newest and span.day >= newest]
    return min(open_since, default=None)


def _is_beyond(cover: Cover, parts: Sequence[Any], max_open: timedelta | None) -> bool:
    """Whether hours take events that are removed, or, of long periods, of more than `max_open`."""
    if max_open is None:
        return bool(parts and cover.removed)
    of_open = sum((span.end - span.start for span in cover.open), timedelta())
    return bool(parts) or of_open > max_open


def _newest_first(cover: Cover) -> list[date]:
    """The days of which something is closed or open."""
    return sorted({*map(day_of, cover.runs), *(span.day for span in cover.open)}, reverse=True)


def _only(cover: Cover, days: Container[date], registries: set[str]) -> Cover:
    """What is open on these days, and what is closed where one of the registries was heard of."""
    runs = {
        key: run
        for key, run in cover.runs.items()
        if day_of(key) in days and registries.intersection(cover.registries[key])
    }
    return cover._replace(runs=runs, open=[span for span in cover.open if span.day in days])


def _note_heard(heard: Heard, document: Document) -> None:
    """That a document of rows tells of an event; one that is old does not tell whether in time."""
    if document.get("heard", True):
        _add_heard(heard, document["registry"], day_of(document["day"]))


def _add_heard(heard: Heard, registry: str, day: date) -> None:
    first, last = heard.get(registry, (day, day))
    heard[registry] = min(first, day), max(last, day)


def _newer(newest: Newest, row: Row, scope: Scope, is_use: Callable[[Row], bool]) -> Newest:
    """`newest` with what this row tells."""
    proof = proof_of(row, scope)

    def newer(found: Proof | None) -> Proof:
        return proof if found is None or row.last > found.last else found

    if row.action in (PULL, PULL_PART):
        newest = newest._replace(pull=newer(newest.pull))
    if row.action == CHECK:
        newest = newest._replace(check=newer(newest.check))
    return newest._replace(use=newer(newest.use)) if is_use(row) else newest
