"""What happened by day: closed days summarised, all others counted from the events.

A day is closed by replacing its documents under a new run id and then naming that run in
`usage_days`, so that a reader sees the old ones or the new ones, never a mixture, and closing it
again is harmless. The hours of a day that is not over are closed in the same way, until the day
is. An event that comes late, or changes an older one, opens its hour or day again before it
is stored; what was just opened is left alone for OPEN, longer than storing takes, so that no event
slips in between reading and closing.

Each summary is kept twice: in `usage` as rows, one document for each repository, from which every
figure can be made; and in `usage_sums` added up: of all repositories, also for each client class
and account, and of each namespace; so a dashboard reads little more than a document for each day.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from app.rules.clients import OWN_CLIENT
from app.rules.events import position_at
from app.rules.usage import (
    COUNTED,
    PULL,
    PULL_PART,
    PUSH_PART,
    TOPS,
    Calendar,
    Counts,
    Row,
    Span,
    Sums,
    add_counts,
    days_between,
)
from app.store.errors import translate_errors
from app.store.paging import Document, all_of, between, chunks, select
from app.store.scope import Scope

Found = TypeVar("Found")
Image = tuple[str, str, str | None, str | None]  # registry, repository, tag, digest

# Lists within a document are bytes: the database need not know what is in them.
_ROWS: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
    list[tuple[str | None, str | None, str, str, str, str, int, datetime, int]]
)

OPEN = timedelta(seconds=60)
IN_TIME = timedelta(days=1)  # from when something happened until its event comes, at most
SETTLED = timedelta(hours=1)  # the push of an index may change those of its children so much later
LEASE = timedelta(minutes=5)
MAX_ROWS = 5_000  # of one document: below 16 MB whatever the names
FORM = 3  # of the summaries; days that were summarised in another one are made anew
EVERYTHING = "everything"
BULK = 50  # documents in one command
# That one page makes from the events of days that are not closed, and what an open time has more:
# each is counted whole.
MAX_LIVE_ROWS = 20_000

# Of `usage_days`: a day that may be opened, as its events are all there.
NOT_REMOVED: dict[str, Any] = {"removed": {"$ne": True}}

_PROJECTION = {
    **dict.fromkeys(("registry", "namespace", "repository", "tag", "digest", "action"), 1),
    **dict.fromkeys(("actor", "client", "address", "parent", "followed_by"), 1),
    **dict.fromkeys(("timestamp", "content_size"), 1),
}
_CAME = dict.fromkeys(("registry", "timestamp", "received_at"), 1)


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the figures; None leaves one out. `first` and `last` are days, both included.

    `client` may be several classes. `actor` "" is requests without account.
    """

    first: date
    last: date
    registry: str | None = None
    namespace: str | None = None
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    actor: str | None = None
    clients: frozenset[str] | None = None


class Usage(msgspec.Struct, frozen=True):
    """Rows of a period; `missing` are days that are not in them, as they are being prepared."""

    rows: list[Row]
    missing: Sequence[date]


class Cover(NamedTuple):
    """How the figures of a period are found: `runs` of what is closed, by key; the rest is open.

    The events of `removed` days are gone: their figures are in the summaries alone.
    """

    runs: dict[str, str]
    open: list[Span]
    removed: list[date]


@translate_errors
class UsageStore:
    """Collections `usage`, `usage_sums`, `usage_days` (what is closed), `leases`."""

    def __init__(
        self, database: Database[Document], calendar: Calendar, retention_days: int = 0
    ) -> None:
        """`retention_days` is how long events are kept; 0 is for ever."""
        self._events: Collection[Document] = database["events"]
        self._usage: Collection[Document] = database["usage"]
        self._sums: Collection[Document] = database["usage_sums"]
        self._days: Collection[Document] = database["usage_days"]
        self._leases: Collection[Document] = database["leases"]
        self.calendar = calendar
        self.retention_days = retention_days
        self.max_live_rows = MAX_LIVE_ROWS

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._usage.create_index("day")
        for field in ("namespace", "repository"):
            self._usage.create_index([(field, 1), ("day", 1)])
        self._usage.create_index([("digests", 1), ("day", 1)])
        self._sums.create_index("day")
        self._sums.create_index([("of", 1), ("day", 1)])

    # Opening and closing days

    def open_days(self, moments: Iterable[datetime], now: datetime) -> None:
        """Note that events of these times are about to be stored or changed.

        What ended less than an hour ago needs no note, as it is not closed yet, and days whose
        events are removed already keep their figures. At most one command for each older hour of
        today, or older day.
        """
        old = [moment for moment in moments if moment + SETTLED <= now]
        spans = {self._noted(moment, now) for moment in old}
        for span in spans:
            if span.end + SETTLED <= now:
                change = {"run": None, "opened_at": now}
                with suppress(DuplicateKeyError):  # its events are removed
                    self._days.update_one(
                        {"_id": span.key, **NOT_REMOVED}, {"$set": change}, upsert=True
                    )

    def _noted(self, moment: datetime, now: datetime) -> Span:
        """The day of a time if that is settled, else its hour."""
        day = self.calendar.span_of(self.calendar.day_of(moment))
        return day if day.end + SETTLED <= now else self.calendar.hour_of(moment)

    def remove_events(self, now: datetime) -> int:
        """Remove what is older than the retention, from closed days only; returns how many.

        In slices of an hour, so that nobody waits long. Before that it is put on record that the
        day's events are gone: whatever the settings become, its figures are final.
        """
        if not self.retention_days:
            return 0
        kept = self.calendar.day_of(now) - timedelta(days=self.retention_days)
        # Bounded, and next to nothing but what is to be removed: see find_first_day.
        old = between(None, position_at(self.calendar.start_of(kept)))
        oldest = self._events.find(old, {"timestamp": 1}).sort("position", 1).limit(1)
        days = [self.calendar.day_of(event["timestamp"]) for event in oldest]
        if not days:
            return 0
        removed = 0
        states = self._find_states(days[0], kept)
        for day in days_between(days[0], kept - timedelta(days=1)):
            run = self._run_of(states.get(day.isoformat()))
            closed, final = {"_id": day.isoformat(), "run": run}, {"$set": {"removed": True}}
            if not run or not self._days.update_one(closed, final).matched_count:
                break
            for hour in self.calendar.hours_of(day):
                bounds = between(position_at(hour.start), position_at(hour.end))
                removed += self._events.delete_many(bounds).deleted_count
        return removed

    def remove_registry(self, registry: str) -> None:
        """Forget what happened in one registry."""
        for collection in (self._usage, self._sums):
            collection.delete_many({"registry": registry})

    def find_open_days(self, now: datetime) -> list[date]:
        """The days that are over, not closed, and may be closed now; oldest first."""
        return [day for day, state in self._find_settled(now) if not self._run_of(state)]

    def find_settled_days(
        self, now: datetime, first: date | None = None, last: date | None = None
    ) -> list[date]:
        """The days from `first` to `last` that may be closed now, once more if they are."""
        return [
            day
            for day, state in self._find_settled(now)
            if (first or day) <= day <= (last or day) and not (state or {}).get("removed")
        ]

    def _find_settled(self, now: datetime) -> list[tuple[date, Document | None]]:
        first, today = self.find_first_day(), self.calendar.day_of(now)
        if first is None:
            return []
        states = self._find_states(first, today)
        days = [(day, states.get(day.isoformat())) for day in days_between(first, today)]
        return [row for row in days if _is_settled(self.calendar.span_of(row[0]), row[1], now)]

    def find_open_hours(self, now: datetime) -> list[Span]:
        """The hours that may be closed now, of days that may not yet; oldest first."""
        today, first = self.calendar.day_of(now), self.find_first_day()
        yesterday = today - timedelta(days=1)
        states = self._find_states(yesterday, today)
        return [
            hour
            for day in (yesterday, today)
            if first is not None
            and day >= first
            and day.isoformat() not in states
            and not _is_settled(self.calendar.span_of(day), None, now)
            for hour in self.calendar.hours_of(day)
            if not self._run_of(states.get(hour.key))
            and _is_settled(hour, states.get(hour.key), now)
        ]

    def find_first_day(self) -> date | None:
        """The day of the oldest event or summary, or None.

        The embedded database reads all that a bound matches, so it is asked for what should not
        be there: events before the first day that is on the list.
        """
        listed = [row["_id"] for row in self._days.find({}, {"_id": 1}).sort("_id", 1).limit(1)]
        first = _day_of(listed[0]) if listed else None
        earlier = {"position": {"$lt": position_at(self.calendar.start_of(first))}} if first else {}
        for row in self._events.find(earlier, {"timestamp": 1}).sort("position", 1).limit(1):
            return self.calendar.day_of(row["timestamp"])
        return first

    def find_kept_since(self) -> datetime | None:
        """Since when events are kept: the end of the newest day whose events are removed.

        None while nothing was removed.
        """
        removed = self._days.find({"removed": True}, {"_id": 1}).sort("_id", -1).limit(1)
        return next((self.calendar.end_of(_day_of(row["_id"])) for row in removed), None)

    def close_day(self, day: date) -> int:
        """Summarise one day anew; returns the number of its rows. Idempotent, safe at any crash."""
        number = self.close(self.calendar.span_of(day))
        state = self._days.find_one({"_id": day.isoformat()}) or {}
        if state.get("run"):
            hours = {"$gt": day.isoformat(), "$lt": _after(day)}
            self._days.delete_many({"_id": hours})
            for collection in (self._usage, self._sums):
                collection.delete_many({"day": hours})
        return number

    def close(self, span: Span) -> int:
        """Summarise a day or an hour; see close_day.

        Not a day whose events are removed, or begin to be meanwhile: that would lose its figures.
        """
        key = {"_id": span.key}
        state = self._days.find_one(key) or {}
        if state.get("removed"):
            return 0
        run = secrets.token_hex(8)
        number, registries = self._write(span, run)
        # Unless an event came meanwhile, or its events are removed: then it stays as it is.
        closed = {"run": run, "form": FORM, "zone": self.calendar.zone, "registries": registries}
        unchanged = {"opened_at": state.get("opened_at"), "run": state.get("run")}
        others: Any = {"$ne": run}
        try:
            self._days.update_one(key | unchanged | NOT_REMOVED, {"$set": closed}, upsert=True)
        except DuplicateKeyError:
            others = run
        for collection in (self._usage, self._sums):
            collection.delete_many({"day": span.key, "run": others})
        return number

    def _write(self, span: Span, run: str) -> tuple[int, list[str]]:
        """Write the summaries of a time; returns how many rows, and which registries were watched.

        The events are read by the hour, so that nobody waits long for the database. Those of a
        registry that all came more than a day late do not show that its events came then.
        """
        rows: dict[tuple[str, str, str], dict[tuple[Any, ...], Row]] = {}
        sums: dict[tuple[str, str], Sums] = {}
        watched: set[str] = set()
        is_day = span.key == span.day.isoformat()
        hours = self.calendar.hours_of(span.day) if is_day else [span]
        for hour in hours:
            for namespace, row in self._count([{}], hour.start, hour.end, watched):
                found = rows.setdefault((row.registry, namespace, row.repository), {})
                names = row[3:9]
                found[names] = found[names].with_more(row) if names in found else row
                for of in _sums_of(namespace, row):
                    sums.setdefault((row.registry, of), Sums()).add(row, int(hour.key[-2:]))
        self._insert(self._usage, _row_documents(span, run, rows))
        self._insert(self._sums, _sum_documents(span, run, sums))
        return sum(map(len, rows.values())), sorted(watched)

    def _insert(self, collection: Collection[Document], documents: Iterable[Document]) -> None:
        waiting: list[Document] = []
        for document in documents:
            waiting.append(document)
            if len(waiting) == BULK:
                collection.insert_many(waiting)
                waiting = []
        if waiting:
            collection.insert_many(waiting)

    # Reading

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
        closed = self._read_rows(cover, _parts(query, scope, "digests"))
        made, missing = self._make_rows(cover, _parts(query, scope))
        return (row for row in chain(closed, made) if _matches(row, query)), missing

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
            named, parts = _split(query, scope)
            fields = dict.fromkeys(("day", "run", "registry", "counts", "bytes", *tops), 1)
            for document in self._read_sums(cover, query, named, fields):
                _add_document(sums, document, tops)
            made, sums.missing = self._make_rows(cover, _parts(query, scope))
            for row in chain(self._read_rows(cover, parts), made):
                if _matches(row, query):
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
            named, parts = _split(query, scope)
            hours: dict[Span, Counts] = {hour: {} for hour in wanted}
            fields = dict.fromkeys(("day", "run", "registry", "hours"), 1)
            for document in self._read_sums(cover, query, named, fields):
                of_day = self.calendar.hours_of(_day_of(document["day"]))
                for number, counts in document.get("hours", ()):
                    if number < len(of_day):  # a day of another time zone may have been longer
                        add_counts(hours[of_day[number]], counts)
            if parts and cover.removed:
                return None
            rows = 0
            for hour, found in hours.items():
                is_open = any(span.start <= hour.start < span.end for span in cover.open)
                chosen = _parts(query, scope) if is_open or query.digest else parts
                for _, row in self._count(chosen, hour.start, hour.end):
                    rows += 1
                    if row.action in COUNTED and _matches(row, query):
                        add_counts(found, {row.action: row.number})
                if rows >= self.max_live_rows:
                    return None
            return hours

        days = days_between(query.first, query.last)
        wanted = [hour for day in days for hour in self.calendar.hours_of(day)]
        return self._settled(query, now, read)

    def _settled(self, query: UsageQuery, now: datetime, read: Callable[[Cover], Found]) -> Found:
        """What `read` finds while nothing is closed or opened."""
        last = min(query.last, self.calendar.day_of(now))
        first = self.find_first_day()
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
        states = self._find_states(days[0], days[-1])
        cover = Cover({}, [], [])
        for day in days:
            state = states.get(day.isoformat())
            if state and state.get("removed"):
                cover.removed.append(day)
            if run := self._run_of(state):
                cover.runs[day.isoformat()] = run
            elif state or not any(hour.key in states for hour in self.calendar.hours_of(day)):
                cover.open.append(self.calendar.span_of(day))
            else:
                self._cover_hours(cover, day, states)
        return cover

    def _cover_hours(self, cover: Cover, day: date, states: Mapping[str, Document]) -> None:
        for hour in self.calendar.hours_of(day):
            if run := self._run_of(states.get(hour.key)):
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
            rows += (row for _, row in self._count(parts, span.start, span.end))
        return rows, sorted({span.day for span in spans})

    def _read_rows(self, cover: Cover, parts: Iterable[dict[str, Any]]) -> Iterator[Row]:
        if not cover.runs:
            return
        for part in parts:
            for document in select(self._usage, part, _bounds(cover)):
                if cover.runs.get(document["day"]) == document["run"]:
                    day = _day_of(document["day"])
                    head = (day, document["registry"], document["repository"])
                    for row in _ROWS.decode(document["rows"]):
                        yield Row(*head, *row)

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
                if row.action != PULL or not _matches(row, query):
                    continue
                for name in (row.tag, row.digest):
                    key = (row.registry, row.repository, name or "")
                    if key not in found or row.last > found[key].last:
                        found[key] = row
            return found

        return self._settled(query, now, read)

    def _count(
        self,
        parts: Iterable[dict[str, Any]],
        start: datetime,
        end: datetime,
        watched: set[str] | None = None,
    ) -> Iterator[tuple[str, Row]]:
        """Rows made from the events of a time, each with its namespace.

        The registries of events that came within a day are added to `watched`.
        """
        counted: dict[tuple[Any, ...], list[Any]] = {}
        span = between(position_at(start), position_at(end))
        for part in parts:
            fields = _PROJECTION if watched is None else _PROJECTION | _CAME
            for event in select(self._events, part, span, fields):
                if watched is not None and _is_in_time(event):
                    watched.add(event["registry"])
                action = _action_of(event)
                if action is None:
                    continue
                key = (
                    event["namespace"],
                    self.calendar.day_of(event["timestamp"]),
                    event["registry"],
                    event["repository"],
                    event.get("tag"),
                    event.get("digest"),
                    action,
                    event["actor"],
                    event.get("client", "other"),
                    event.get("address", ""),
                )
                sums = counted.setdefault(key, [0, event["timestamp"], 0])
                sums[0] += 1
                sums[1] = max(sums[1], event["timestamp"])
                sums[2] += event.get("content_size") or 0
        for key, sums in counted.items():
            yield key[0], Row(*key[1:], *sums)

    def find_known(self) -> dict[str, tuple[datetime, date]]:
        """Since when the events of each registry came in time, at the latest, and its last day.

        The first is the end of a day. A registry that is new since what is closed is not in it.
        """
        known: dict[str, tuple[datetime, date]] = {}
        for row in self._days.find().sort("_id", 1):
            day = _day_of(row["_id"])
            for registry in row.get("registries", ()):
                since, _ = known.get(registry, (self.calendar.end_of(day), day))
                known[registry] = since, day
        return known

    def find_open_registries(self, query: UsageQuery, now: datetime) -> set[str]:
        """The registries of which something came in time on days that are not closed yet."""

        def read(cover: Cover) -> set[str]:
            bounds = [
                between(position_at(span.start), position_at(span.end)) for span in cover.open
            ]
            events = (event for bound in bounds for event in self._events.find(bound, _CAME))
            return {event["registry"] for event in events if _is_in_time(event)}

        return self._settled(query, now, read)

    def _find_states(self, first: date, last: date) -> dict[str, Document]:
        """Of the days and their hours, by key."""
        bounds = {"_id": {"$gte": first.isoformat(), "$lt": _after(last)}}
        return {row["_id"]: row for row in self._days.find(bounds)}

    def _run_of(self, state: Document | None) -> str | None:
        """The run whose summaries are those of a closed day or hour; None of an open one.

        Another time zone, or form, opens every day whose events are still there.
        """
        if state is None:
            return None
        is_ours = (state.get("zone"), state.get("form")) == (self.calendar.zone, FORM)
        return state.get("run") if is_ours or state.get("removed") else None

    # Who closes days

    def take_lease(self, name: str, owner: str, now: datetime) -> bool:
        """Whether `owner` now holds the lease, for five minutes: it was free, over, or its own."""
        free = {"_id": name, "$or": [{"until": {"$lt": now}}, {"owner": owner}]}
        try:
            result = self._leases.update_one(
                free, {"$set": {"owner": owner, "until": now + LEASE}}, upsert=True
            )
        except DuplicateKeyError:
            return False
        return bool(result.matched_count or result.upserted_id is not None)

    def give_lease_back(self, name: str, owner: str) -> None:
        """Let another one take the lease at once."""
        self._leases.delete_one({"_id": name, "owner": owner})


def _is_in_time(event: Document) -> bool:
    return bool(event["received_at"] - event["timestamp"] <= IN_TIME)


def _action_of(event: Document) -> str | None:
    """How an event counts, or None."""
    action = event["action"]
    if event.get("client") == OWN_CLIENT or action not in COUNTED:
        return None
    if event.get("parent"):
        return {"pull": PULL_PART, "push": PUSH_PART}.get(action)
    if action == "check" and event.get("followed_by"):
        return None
    return str(action)


def _parts(query: UsageQuery, scope: Scope, digest: str = "digest") -> list[dict[str, Any]]:
    """Queries of events; of documents of rows, which have several digests, with `digest` so."""
    head = {digest: query.digest} if query.digest and not query.repository else {}
    parts = scope.within(query.repository or None)
    return [all_of(head, part, _wanted(query)) for part in parts]


def _wanted(query: UsageQuery) -> dict[str, Any]:
    wanted = {"registry": query.registry, "namespace": query.namespace}
    return {name: value for name, value in wanted.items() if value is not None}


def _matches(row: Row, query: UsageQuery) -> bool:
    return (
        (query.tag is None or row.tag == query.tag)
        and (query.digest is None or row.digest == query.digest)
        and (query.actor is None or row.actor == query.actor)
        and (query.clients is None or row.client in query.clients)
    )


def _day_of(key: str) -> date:
    """The day of the key of a day or an hour."""
    return date.fromisoformat(key[:10])


def _after(day: date) -> str:
    """What comes after the keys of a day and its hours."""
    return f"{day}U"


def _bounds(cover: Cover) -> dict[str, Any]:
    return {"day": {"$gte": min(cover.runs), "$lte": max(cover.runs)}}


def _is_settled(span: Span, state: Document | None, now: datetime) -> bool:
    """Whether no event is on its way any more that was not noted."""
    opened_at = (state or {}).get("opened_at")
    return now >= span.end + SETTLED + OPEN and (opened_at is None or opened_at <= now - OPEN)


def _sums_of(namespace: str, row: Row) -> tuple[str, ...]:
    """The sums that a row is in."""
    return (
        EVERYTHING,
        f"{EVERYTHING} client {row.client}",
        f"{EVERYTHING} account {row.actor}",
        f"namespace {namespace}",
    )


def _split(query: UsageQuery, scope: Scope) -> tuple[list[str], list[dict[str, Any]]]:
    """The sums that hold what `query` selects, and queries for the rows of what is in none."""
    if any((query.repository, query.tag, query.digest)):
        return [], _parts(query, scope, "digests")
    cuts = [f" client {client}" for client in query.clients or ()]
    cuts += [] if query.actor is None else [f" account {query.actor}"]
    named: list[str] = []
    rest: list[dict[str, Any]] = []
    for part in scope.queries:
        if not part and query.namespace is None and len(cuts) < 2:
            named.append(EVERYTHING + "".join(cuts))
        elif not part and not cuts:
            named.append(f"namespace {query.namespace}")
        elif part.keys() == {"namespace"} and not cuts:
            of = part["namespace"]
            allowed = [of] if isinstance(of, str) else of["$in"]
            wanted = (name for name in allowed if query.namespace in (None, name))
            named += (f"namespace {name}" for name in wanted)
        else:
            rest.append(all_of(part, _wanted(query)))
    return named, rest


def _row_documents(
    span: Span, run: str, rows: Mapping[tuple[str, str, str], Mapping[Any, Row]]
) -> Iterator[Document]:
    for (registry, namespace, repository), found in sorted(rows.items()):
        listed = [list(row[3:]) for row in found.values()]
        for start in range(0, len(listed), MAX_ROWS):
            yield {
                "_id": f"{span.key} {registry} {repository} {start} {run}",
                "day": span.key,
                "run": run,
                "registry": registry,
                "namespace": namespace,
                "repository": repository,
                "digests": sorted({row[1] for row in listed[start : start + MAX_ROWS] if row[1]}),
                "rows": msgspec.msgpack.encode(listed[start : start + MAX_ROWS]),
            }


def _sum_documents(
    span: Span, run: str, sums: Mapping[tuple[str, str], Sums]
) -> Iterator[Document]:
    for (registry, of), found in sorted(sums.items()):
        lines = [
            # The registry is in the document.
            (name, [*(key[1:] if TOPS[name].with_registry else key), *numbers])
            for name, top in found.tops.items()
            for key, numbers in top.items()
        ]
        for start in range(0, max(1, len(lines)), MAX_ROWS):
            document: Document = {
                "_id": f"{span.key} {registry} {run} {start} {of}",
                "day": span.key,
                "run": run,
                "of": of,
                "registry": registry,
            }
            if start == 0:
                document["counts"] = found.counts
                document["hours"] = [[number, found.hours[number]] for number in found.hours]
                document["bytes"] = found.bytes_pushed
            chunk = lines[start : start + MAX_ROWS]
            for name in TOPS:
                found_here = [line for kind, line in chunk if kind == name]
                if found_here:
                    document[name] = msgspec.msgpack.encode(found_here)
            yield document


def _add_document(sums: Sums, document: Document, tops: Sequence[str]) -> None:
    if "counts" in document:
        sums.count(_day_of(document["day"]), document["counts"])
        sums.bytes_pushed += document["bytes"]
    for name in tops:
        head = (document["registry"],) if TOPS[name].with_registry else ()
        lines = msgspec.msgpack.decode(document[name]) if name in document else ()
        for *key, pulls, pushes in lines:
            sums.add_top(name, (*head, *key), pulls, pushes)
