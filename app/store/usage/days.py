"""Days and hours: which are closed, opening them for late events, closing and removing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from app.rules.events import position_at
from app.rules.usage import Calendar, Row, Span, Sums, days_between
from app.store.errors import translate_errors
from app.store.paging import Document, between
from app.store.usage.counting import bounds_of, count_rows
from app.store.usage.documents import FORM, after, day_of, row_documents, sum_documents, sums_of

OPEN = timedelta(seconds=60)
SETTLED = timedelta(hours=1)  # the push of an index may change those of its children so much later
BULK = 50  # documents in one command

# Of `usage_days`: a day that may be opened, as its events are all there.
NOT_REMOVED: dict[str, Any] = {"removed": {"$ne": True}}


@translate_errors
class DayStore:
    """Collection `usage_days`: what is closed. Writes the summaries, `usage` and `usage_sums`."""

    def __init__(
        self, database: Database[Document], calendar: Calendar, retention_days: int = 0
    ) -> None:
        """`retention_days` is how long events are kept; 0 is for ever."""
        self._events: Collection[Document] = database["events"]
        self._usage: Collection[Document] = database["usage"]
        self._sums: Collection[Document] = database["usage_sums"]
        self._days: Collection[Document] = database["usage_days"]
        self.calendar = calendar
        self.retention_days = retention_days

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._usage.create_index("day")
        for field in ("namespace", "repository"):
            self._usage.create_index([(field, 1), ("day", 1)])
        self._usage.create_index([("digests", 1), ("day", 1)])
        self._sums.create_index("day")
        self._sums.create_index([("of", 1), ("day", 1)])

    # Opening

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

    # Removing

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
        states = self.find_states(days[0], kept)
        for day in days_between(days[0], kept - timedelta(days=1)):
            run = self.run_of(states.get(day.isoformat()))
            closed, final = {"_id": day.isoformat(), "run": run}, {"$set": {"removed": True}}
            if not run or not self._days.update_one(closed, final).matched_count:
                break
            for hour in self.calendar.hours_of(day):
                removed += self._events.delete_many(bounds_of(hour)).deleted_count
        return removed

    def remove_registry(self, registry: str) -> None:
        """Forget what happened in one registry."""
        for collection in (self._usage, self._sums):
            collection.delete_many({"registry": registry})

    # Closing

    def find_open_days(self, now: datetime) -> list[date]:
        """The days that are over, not closed, and may be closed now; oldest first."""
        return [day for day, state in self._find_settled(now) if not self.run_of(state)]

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
        states = self.find_states(first, today)
        days = [(day, states.get(day.isoformat())) for day in days_between(first, today)]
        return [row for row in days if _is_settled(self.calendar.span_of(row[0]), row[1], now)]

    def find_open_hours(self, now: datetime) -> list[Span]:
        """The hours that may be closed now, of days that may not yet; oldest first."""
        today, first = self.calendar.day_of(now), self.find_first_day()
        yesterday = today - timedelta(days=1)
        states = self.find_states(yesterday, today)
        return [
            hour
            for day in (yesterday, today)
            if first is not None
            and day >= first
            and day.isoformat() not in states
            and not _is_settled(self.calendar.span_of(day), None, now)
            for hour in self.calendar.hours_of(day)
            if not self.run_of(states.get(hour.key))
            and _is_settled(hour, states.get(hour.key), now)
        ]

    def close_day(self, day: date) -> int:
        """Summarise one day anew; returns the number of its rows. Idempotent, safe at any crash."""
        number = self.close(self.calendar.span_of(day))
        state = self._days.find_one({"_id": day.isoformat()}) or {}
        if state.get("run"):
            hours = {"$gt": day.isoformat(), "$lt": after(day)}
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
            for namespace, row in count_rows(self._events, self.calendar, [{}], hour, watched):
                found = rows.setdefault((row.registry, namespace, row.repository), {})
                names = row[3:9]
                found[names] = found[names].with_more(row) if names in found else row
                for of in sums_of(namespace, row):
                    sums.setdefault((row.registry, of), Sums()).add(row, int(hour.key[-2:]))
        self._insert(self._usage, row_documents(span, run, rows))
        self._insert(self._sums, sum_documents(span, run, sums))
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

    # What is known

    def find_first_day(self) -> date | None:
        """The day of the oldest event or summary, or None.

        The embedded database reads all that a bound matches, so it is asked for what should not
        be there: events before the first day that is on the list.
        """
        listed = [row["_id"] for row in self._days.find({}, {"_id": 1}).sort("_id", 1).limit(1)]
        first = day_of(listed[0]) if listed else None
        earlier = {"position": {"$lt": position_at(self.calendar.start_of(first))}} if first else {}
        for row in self._events.find(earlier, {"timestamp": 1}).sort("position", 1).limit(1):
            return self.calendar.day_of(row["timestamp"])
        return first

    def find_kept_since(self) -> datetime | None:
        """Since when events are kept: the end of the newest day whose events are removed.

        None while nothing was removed.
        """
        removed = self._days.find({"removed": True}, {"_id": 1}).sort("_id", -1).limit(1)
        return next((self.calendar.end_of(day_of(row["_id"])) for row in removed), None)

    def find_known(self) -> dict[str, tuple[datetime, date]]:
        """Since when the events of each registry came in time, at the latest, and its last day.

        The first is the end of a day. A registry that is new since what is closed is not in it.
        """
        known: dict[str, tuple[datetime, date]] = {}
        for row in self._days.find().sort("_id", 1):
            day = day_of(row["_id"])
            for registry in row.get("registries", ()):
                since, _ = known.get(registry, (self.calendar.end_of(day), day))
                known[registry] = since, day
        return known

    def find_states(self, first: date, last: date) -> dict[str, Document]:
        """Of the days and their hours, by key."""
        bounds = {"_id": {"$gte": first.isoformat(), "$lt": after(last)}}
        return {row["_id"]: row for row in self._days.find(bounds)}

    def run_of(self, state: Document | None) -> str | None:
        """The run whose summaries are those of a closed day or hour; None of an open one.

        Another time zone, or form, opens every day whose events are still there.
        """
        if state is None:
            return None
        is_ours = (state.get("zone"), state.get("form")) == (self.calendar.zone, FORM)
        return state.get("run") if is_ours or state.get("removed") else None


def _is_settled(span: Span, state: Document | None, now: datetime) -> bool:
    """Whether no event is on its way any more that was not noted."""
    opened_at = (state or {}).get("opened_at")
    return now >= span.end + SETTLED + OPEN and (opened_at is None or opened_at <= now - OPEN)
