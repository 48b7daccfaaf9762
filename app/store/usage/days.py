"""Days and hours: which have events, which are closed; opening, closing and removing them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
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
from app.store.usage.counting import Place, bounds_of, count_rows
from app.store.usage.documents import FORM, after, day_of, row_documents, sum_documents, sums_of

OPEN = timedelta(minutes=2)  # a projector's turn ends after one; and clocks of servers differ
SETTLED = timedelta(hours=1)  # the push of an index may change those of its children so much later
BULK = 50  # documents in one command
MAX_LISTED = 1_000  # days that a process remembers to have listed

# Of `usage_days`: a day that may be opened, as its events are all there.
NOT_REMOVED: dict[str, Any] = {"removed": {"$ne": True}}
APART = timedelta(days=2)  # at most, from a day's name in one time zone to that in another


@translate_errors
class DayStore:
    """Collection `usage_days`: each day with events, and whether it is closed; so for hours.

    Writes the summaries, `usage` and `usage_sums`. A day that is not listed has no events; one that
    is listed stays, for other processes remember that it is.
    """

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
        self._listed: set[str] = set()

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
        """Note that events of these times are about to be stored or changed, within OPEN.

        `now` is when this is noted, however long ago the events came here. What ended less than an
        hour ago is not closed yet, and days whose events are removed already keep their figures.
        At most one command for each older hour of today, older day, or day that is not remembered.
        """
        found = set(moments)
        spans = {self._noted(moment, now) for moment in found if moment + SETTLED <= now}
        for span in spans:
            if span.end + SETTLED <= now:
                change = {"$set": {"run": None, "opened_at": now}, "$setOnInsert": self._zone()}
                with suppress(DuplicateKeyError):  # its events are removed
                    self._days.update_one({"_id": span.key, **NOT_REMOVED}, change, upsert=True)
        self._list({self.calendar.day_of(moment) for moment in found})

    def _list(self, days: Iterable[date]) -> None:
        """Have these days on the list."""
        for key in {day.isoformat() for day in days} - self._listed:
            with suppress(DuplicateKeyError):  # another process was faster
                self._days.update_one({"_id": key}, {"$setOnInsert": self._zone()}, upsert=True)
            if len(self._listed) >= MAX_LISTED:
                self._listed.clear()
            self._listed.add(key)

    def _zone(self) -> Document:
        return {"zone": self.calendar.zone}

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
        # Bounded, and next to nothing but what is to be removed: the embedded database reads all
        # that a bound matches.
        old = between(None, position_at(self.calendar.start_of(kept)))
        oldest = self._events.find(old, {"timestamp": 1}).sort("position", 1).limit(1)
        days = [self.calendar.day_of(event["timestamp"]) for event in oldest]
        if not days:
            return 0
        removed = 0
        for day, state in self.days_of(self.find_states(days[0], kept - timedelta(days=1))):
            bounds = bounds_of(self.calendar.span_of(day))
            run = self.run_of(state)
            if not run or not self._events.find_one(bounds, {"_id": 1}):
                continue
            closed, final = {"_id": day.isoformat(), "run": run}, {"$set": {"removed": True}}
            if self._days.update_one(closed, final).matched_count:
                for hour in self.calendar.hours_of(day):
                    removed += self._events.delete_many(bounds_of(hour)).deleted_count
        return removed

    def remove_registry(self, registry: str) -> None:
        """Forget what happened in one registry."""
        for collection in (self._usage, self._sums):
            collection.delete_many({"registry": registry})

    # Closing

    def find_open_days(self, now: datetime) -> list[date]:
        """The days that are over, not closed, and may be closed now; newest first."""
        return [day for day, state in self._find_settled(now) if not self.run_of(state)]

    def find_settled_days(
        self, now: datetime, first: date | None = None, last: date | None = None
    ) -> list[date]:
        """The days from `first` to `last` that may be closed now, once more if they are."""
        return [
            day
            for day, state in self._find_settled(now, first or date.min, last or date.max)
            if not state.get("removed")
        ]

    def _find_settled(
        self, now: datetime, first: date = date.min, last: date = date.max
    ) -> list[tuple[date, Document]]:
        days = self.days_of(self.find_states(first, min(last, self.calendar.day_of(now))))
        return [
            (day, state)
            for day, state in reversed(days)
            if _is_settled(self.calendar.span_of(day), state, now)
        ]

    def find_open_hours(self, now: datetime) -> list[Span]:
        """The hours that may be closed now, of days that may not yet; oldest first."""
        today = self.calendar.day_of(now)
        states = self.find_states(today - timedelta(days=1), today)
        return [
            hour
            for day, state in self.days_of(states)
            if not is_whole(state) and not _is_settled(self.calendar.span_of(day), state, now)
            for hour in self.calendar.hours_of(day)
            if not self.run_of(states.get(hour.key))
            and _is_settled(hour, states.get(hour.key, {}), now)
        ]

    def close_day(self, day: date, now: datetime | None = None) -> int:
        """Summarise one day anew; returns the number of its rows. Idempotent, safe at any crash.

        With `now` not one that may not be closed yet: while others were, it may have been opened.
        """
        number = self.close(self.calendar.span_of(day), now)
        state = self._days.find_one({"_id": day.isoformat()}) or {}
        if state.get("run"):
            hours = {"$gt": day.isoformat(), "$lt": after(day)}
            self._days.delete_many({"_id": hours})
            for collection in (self._usage, self._sums):
                collection.delete_many({"day": hours})
        return number

    def close(self, span: Span, now: datetime | None = None) -> int:
        """Summarise a day or an hour; see close_day.

        Not a day whose events are removed, or begin to be meanwhile: that would lose its figures.
        """
        key = {"_id": span.key}
        state = self._days.find_one(key) or {}
        if state.get("removed") or not (now is None or _is_settled(span, state, now)):
            return 0
        self._list(self._days_in(state))
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
        """Write the summaries of a time; returns how many rows, and the registries heard of.

        The events are read by the hour, so that nobody waits long for the database. Those that all
        came more than a day late do not show that events of their repository came then.
        """
        rows: dict[Place, dict[tuple[Any, ...], Row]] = {}
        sums: dict[tuple[str, str], Sums] = {}
        heard: set[Place] = set()
        is_day = span.key == span.day.isoformat()
        hours = self.calendar.hours_of(span.day) if is_day else [span]
        for hour in hours:
            for namespace, row in count_rows(self._events, self.calendar, [{}], hour, heard):
                found = rows.setdefault((row.registry, namespace, row.repository), {})
                names = row.names
                found[names] = found[names].with_more(row) if names in found else row
                for of in sums_of(namespace, row):
                    sums.setdefault((row.registry, of), Sums()).add(row, int(hour.key[-2:]))
        for place in heard:
            rows.setdefault(place, {})
        self._insert(self._usage, row_documents(span, run, rows, heard))
        self._insert(self._sums, sum_documents(span, run, sums))
        return sum(map(len, rows.values())), sorted({registry for registry, *_ in heard})

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
        """The first day on the list, or None."""
        listed = self._days.find({}, {"_id": 1}).sort("_id", 1).limit(1)
        return next((day_of(row["_id"]) for row in listed), None)

    def find_kept_since(self) -> datetime | None:
        """Since when events are kept: the end of the newest day whose events are removed.

        None while nothing was removed.
        """
        removed = self._days.find({"removed": True}, {"_id": 1}).sort("_id", -1).limit(1)
        return next((self.calendar.end_of(day_of(row["_id"])) for row in removed), None)

    def find_states(self, first: date, last: date) -> dict[str, Document]:
        """The documents of the days on the list and of their hours, by key.

        A day that was listed in another time zone stands for each day of this one that it touches.
        """
        lower, upper = max(first, date.min + APART) - APART, min(last, date.max - APART) + APART
        found = self._days.find({"_id": {"$gte": lower.isoformat(), "$lt": after(upper)}})
        states = {row["_id"]: row for row in found}
        touched = {day for state in states.values() for day in self._days_in(state)}
        for day in touched:
            states.setdefault(day.isoformat(), {"_id": day.isoformat()})
        return {key: state for key, state in states.items() if first <= day_of(key) <= last}

    def days_of(self, states: Mapping[str, Document]) -> list[tuple[date, Document]]:
        """The days among these states, in order."""
        days = (key for key in sorted(states) if _is_day(key))
        return [(day_of(key), states[key]) for key in days]

    def _days_in(self, state: Document) -> list[date]:
        """The days that a day of another time zone touches; none of one of ours, or of an hour."""
        zone, ours = state.get("zone"), self.calendar.zone
        if zone in (None, ours) or not _is_day(state["_id"]):
            return []
        span = Calendar(zone).span_of(day_of(state["_id"]))
        last = self.calendar.day_of(span.end - timedelta(microseconds=1))
        return list(days_between(self.calendar.day_of(span.start), last))

    def run_of(self, state: Document | None) -> str | None:
        """The run whose summaries are those of a closed day or hour; None of an open one.

        Another time zone, or form, opens every day whose events are still there.
        """
        if state is None:
            return None
        is_ours = (state.get("zone"), state.get("form")) == (self.calendar.zone, FORM)
        return state.get("run") if is_ours or state.get("removed") else None


def _is_day(key: str) -> bool:
    """Whether it is the key of a day, not of an hour."""
    return "T" not in key


def is_whole(state: Document) -> bool:
    """Whether a day was closed, or opened after it was over: its hours tell nothing any more."""
    return "run" in state


def _is_settled(span: Span, state: Document, now: datetime) -> bool:
    """Whether no event is on its way any more that was not noted."""
    opened_at = state.get("opened_at")
    return now >= span.end + SETTLED + OPEN and (opened_at is None or opened_at <= now - OPEN)
