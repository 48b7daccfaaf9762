"""What happened by day: closed days summarised, all others counted from the events.

A day is closed by replacing its documents under a new run id and then naming that run in
`usage_days`, so that a reader sees the old ones or the new ones, never a mixture, and closing it
again is harmless. An event that comes late, or changes an older one, opens its day again before it
is stored; a day just opened is left alone for OPEN_S, longer than storing takes, so that no event
slips in between reading and closing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from app.events import OWN_CLIENT, position_at
from app.store.errors import translate_errors
from app.store.paging import Document, all_of, between
from app.store.scope import Scope
from app.usage import COUNTED, PULL_PART, PUSH_PART, Calendar, Row, days_between

OPEN_S = 60
LEASE = timedelta(minutes=5)
MAX_ROWS = 5_000  # of one document: below 16 MB whatever the names
MAX_LIVE_ROWS = 20_000  # that one page makes from the events of days that are not closed

_PROJECTION = {
    **dict.fromkeys(("registry", "namespace", "repository", "tag", "digest", "action"), 1),
    **dict.fromkeys(("actor", "client", "address", "parent", "followed_by"), 1),
    **dict.fromkeys(("timestamp", "content_size"), 1),
}


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


@translate_errors
class UsageStore:
    """Collections `usage` (rows of closed days), `usage_days` (which are closed), `leases`."""

    def __init__(
        self,
        events: Collection[Document],
        usage: Collection[Document],
        days: Collection[Document],
        leases: Collection[Document],
        calendar: Calendar,
        retention_days: int = 0,
    ) -> None:
        """`retention_days` is how long events are kept; 0 is for ever."""
        self._events = events
        self._usage = usage
        self._days = days
        self._leases = leases
        self.calendar = calendar
        self.retention_days = retention_days
        self.max_live_rows = MAX_LIVE_ROWS

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._usage.create_index("day")
        for field in ("namespace", "repository"):
            self._usage.create_index([(field, 1), ("day", 1)])

    # Opening and closing days

    def open_days(self, moments: Iterable[datetime], now: datetime) -> None:
        """Note that events of these times are about to be stored or changed.

        Days that are not over need no note, and days whose events are removed already keep their
        figures. At most one command for each older day.
        """
        today, first = self.calendar.day_of(now), self.first_kept_day(now)
        for day in {self.calendar.day_of(moment) for moment in moments}:
            if day < today and (first is None or day >= first):
                change = {"run": None, "opened_at": now}
                self._days.update_one({"_id": day.isoformat()}, {"$set": change}, upsert=True)

    def first_kept_day(self, now: datetime) -> date | None:
        """The oldest day whose events are not removed yet, or None: all are kept."""
        if not self.retention_days:
            return None
        return self.calendar.day_of(now) - timedelta(days=self.retention_days)

    def remove_events(self, now: datetime) -> int:
        """Remove what is older than the retention, from closed days only; returns how many.

        In slices of an hour, so that nobody waits long.
        """
        first, kept = self.find_first_day(), self.first_kept_day(now)
        if first is None or kept is None or first >= kept:
            return 0
        removed = 0
        states = self._find_states(first, kept)
        for day in days_between(first, kept - timedelta(days=1)):
            if not self._run_of(day, states.get(day), kept):
                break
            start, end = self.calendar.start_of(day), self.calendar.end_of(day)
            while start < end:
                until = min(start + timedelta(hours=1), end)
                span = between(position_at(start), position_at(until))
                removed += self._events.delete_many(span).deleted_count
                start = until
        return removed

    def remove_registry(self, registry: str) -> None:
        """Forget what happened in one registry."""
        self._usage.delete_many({"registry": registry})

    def find_open_days(self, now: datetime) -> list[date]:
        """The days that are over, not closed, and may be closed now; oldest first."""
        first, kept = self.find_first_day(), self.first_kept_day(now)
        yesterday = self.calendar.day_of(now) - timedelta(days=1)
        if first is None or now - self.calendar.start_of(yesterday + timedelta(days=1)) < timedelta(
            seconds=OPEN_S
        ):
            yesterday -= timedelta(days=1)
        if first is None or first > yesterday:
            return []
        states = self._find_states(first, yesterday)
        settled = now - timedelta(seconds=OPEN_S)
        return [
            day
            for day in days_between(first, yesterday)
            if not self._run_of(day, states.get(day), kept)
            and (states.get(day, {}).get("opened_at") or settled) <= settled
        ]

    def find_first_day(self) -> date | None:
        """The day of the oldest event or summary, or None.

        The embedded database reads all that a bound matches, so it is asked for what should not
        be there: events before the first day that is on the list.
        """
        listed = [row["_id"] for row in self._days.find({}, {"_id": 1}).sort("_id", 1).limit(1)]
        first = date.fromisoformat(listed[0]) if listed else None
        earlier = {"position": {"$lt": position_at(self.calendar.start_of(first))}} if first else {}
        for row in self._events.find(earlier, {"timestamp": 1}).sort("position", 1).limit(1):
            return self.calendar.day_of(row["timestamp"])
        return first

    def close_day(self, day: date) -> int:
        """Summarise one day anew; returns the number of its rows. Idempotent, safe at any crash.

        Never of a day whose events are removed: that would lose its figures.
        """
        key = {"_id": day.isoformat()}
        state = self._days.find_one(key) or {}
        run = secrets.token_hex(8)
        number, registries = self._write(day, run)
        # Unless an event came meanwhile: then the day stays open.
        closed = {"run": run, "zone": self.calendar.zone, "registries": registries}
        unchanged = key | {"opened_at": state.get("opened_at"), "run": state.get("run")}
        try:
            self._days.update_one(unchanged, {"$set": closed}, upsert=True)
        except DuplicateKeyError:
            self._usage.delete_many({"day": day.isoformat(), "run": run})
            return number
        self._usage.delete_many({"day": day.isoformat(), "run": {"$ne": run}})
        return number

    def _write(self, day: date, run: str) -> tuple[int, list[str]]:
        """Write the rows of a day; returns how many, and the registries that they are of."""
        grouped: dict[tuple[str, str, str], list[Row]] = {}
        rows = self._count([{}], self.calendar.start_of(day), self.calendar.end_of(day))
        for namespace, row in rows:
            grouped.setdefault((row.registry, namespace, row.repository), []).append(row)
        documents = []
        for (registry, namespace, repository), found in sorted(grouped.items()):
            for start in range(0, len(found), MAX_ROWS):
                documents.append(
                    {
                        "_id": f"{day} {registry} {repository} {start} {run}",
                        "day": day.isoformat(),
                        "run": run,
                        "registry": registry,
                        "namespace": namespace,
                        "repository": repository,
                        "rows": [list(row[3:]) for row in found[start : start + MAX_ROWS]],
                    }
                )
        for start in range(0, len(documents), 100):
            self._usage.insert_many(documents[start : start + 100])
        registries = sorted({registry for registry, _, _ in grouped})
        return sum(map(len, grouped.values())), registries

    # Reading

    def read(self, query: UsageQuery, scope: Scope, now: datetime) -> Usage:
        """The rows of a period that the scope allows, in no order.

        Days that are not closed are counted from the events, newest first until that becomes too
        much for a page; the others are `missing`.
        """
        last = min(query.last, self.calendar.day_of(now))
        first = self.find_first_day()
        if first is None or last < max(first, query.first):
            return Usage([], [])
        days = list(days_between(max(first, query.first), last))
        kept = self.first_kept_day(now)
        for _ in range(3):  # a day that is closed while we read is read again
            states = self._find_states(days[0], days[-1])
            found = ((day, self._run_of(day, states.get(day), kept)) for day in days)
            runs = {day: run for day, run in found if run}
            rows = list(self._read_closed(runs, query, scope))
            missing = [day for day in days if day not in runs]
            made: list[Row] = []
            while missing and len(made) < self.max_live_rows:
                day = missing.pop()
                start, end = self.calendar.start_of(day), self.calendar.end_of(day)
                made += (row for _, row in self._count(_parts(query, scope), start, end))
            if self._find_states(days[0], days[-1]) == states:
                break
        return Usage([row for row in (*rows, *made) if _matches(row, query)], missing)

    def _read_closed(self, runs: dict[date, str], query: UsageQuery, scope: Scope) -> Iterator[Row]:
        if not runs:
            return
        trusted = set(runs.values())
        bounds = {"day": {"$gte": min(runs).isoformat(), "$lte": max(runs).isoformat()}}
        for part in _parts(query, scope):
            for document in self._usage.find(all_of(part, bounds)):
                if document["run"] in trusted:
                    day = date.fromisoformat(document["day"])
                    head = (day, document["registry"], document["repository"])
                    for row in document["rows"]:
                        yield Row(*head, *row)

    def _count(
        self, parts: Iterable[dict[str, Any]], start: datetime, end: datetime
    ) -> Iterator[tuple[str, Row]]:
        """Rows made from the events of a time, each with its namespace."""
        counted: dict[tuple[Any, ...], list[Any]] = {}
        span = between(position_at(start), position_at(end))
        for part in parts:
            for event in self._events.find(all_of(part, span), _PROJECTION):
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

    def find_known_since(self) -> dict[str, datetime]:
        """Since when the events of each registry are known, at the latest: the end of a day.

        Only of closed days: a registry that is new today is not in it.
        """
        since: dict[str, datetime] = {}
        for row in self._days.find({"run": {"$ne": None}}).sort("_id", 1):
            for registry in row.get("registries", ()):
                end = self.calendar.end_of(date.fromisoformat(row["_id"]))
                since.setdefault(registry, end)
        return since

    def read_hours(self, query: UsageQuery, scope: Scope) -> dict[datetime, dict[str, int]]:
        """How often what happened in each hour (local time) of a few days, from the events."""
        start, end = self.calendar.start_of(query.first), self.calendar.end_of(query.last)
        hours: dict[datetime, dict[str, int]] = {}
        while start < end:
            until = start + timedelta(hours=1)
            found = hours.setdefault(self.calendar.local(start), {})
            for _, row in self._count(_parts(query, scope), start, until):
                if row.action in COUNTED and _matches(row, query):
                    found[row.action] = found.get(row.action, 0) + row.number
            start = until
        return hours

    def _find_states(self, first: date, last: date) -> dict[date, Document]:
        bounds = {"_id": {"$gte": first.isoformat(), "$lte": last.isoformat()}}
        return {date.fromisoformat(row["_id"]): row for row in self._days.find(bounds)}

    def _run_of(self, day: date, state: Document | None, kept: date | None) -> str | None:
        """The run whose rows are those of a closed day; None of an open one.

        Another time zone opens every day whose events are still there.
        """
        if state is None:
            return None
        is_ours = state.get("zone") == self.calendar.zone or (kept is not None and day < kept)
        return state.get("run") if is_ours else None

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


def _parts(query: UsageQuery, scope: Scope) -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {}
    if query.registry is not None:
        wanted["registry"] = query.registry
    if query.namespace is not None and query.repository is None:
        wanted["namespace"] = query.namespace
    return [all_of(part, wanted) for part in scope.within(query.repository or None)]


def _matches(row: Row, query: UsageQuery) -> bool:
    return (
        (query.tag is None or row.tag == query.tag)
        and (query.digest is None or row.digest == query.digest)
        and (query.actor is None or row.actor == query.actor)
        and (query.clients is None or row.client in query.clients)
    )
