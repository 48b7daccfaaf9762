"""Days and hours, and the rows that say what happened in one. Pure.

Every figure is a sum over such rows: of closed days as they were summarised, of other days as they
are made from the events at that moment (app.store.usage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.rules.sizes import add_sizes

PUSH, PULL, CHECK, DELETE = "push", "pull", "check", "delete"
# Of an index's children: they count nowhere, but a child that was pulled is in use, and what was
# pushed with an index are its children's bytes.
PULL_PART, PUSH_PART = "pull part", "push part"
COUNTED = (PUSH, PULL, CHECK, DELETE)
HOUR = timedelta(hours=1)


class Row(NamedTuple):
    """What happened `number` times on one day; `last` is the newest of it, UTC.

    `bytes` is, of pushes, what the pushed manifests hold: blobs that were there before too.
    """

    day: date
    registry: str
    repository: str
    tag: str | None
    digest: str | None
    action: str
    actor: str
    client: str
    address: str
    number: int
    last: datetime
    bytes: int
    is_supplement: bool = False  # of an image: see app.rules.kinds

    @property
    def names(self) -> tuple[str | bool | None, ...]:
        """What tells it from the others of its day, registry and repository."""
        return (*self[3:9], self.is_supplement)

    def with_more(self, row: Row) -> Row:
        """The sum of two rows of the same names."""
        return self._replace(
            number=self.number + row.number,
            last=max(self.last, row.last),
            bytes=add_sizes((self.bytes, row.bytes)),
        )


class Span(NamedTuple):
    """A day, or an hour of it: from `start` (inclusive) to `end`, UTC.

    `key` is the day as `2026-11-25`, with the number of the hour as `2026-11-25T07`. An hour's
    number counts from the beginning of the day, which may have 23 or 25.
    """

    key: str
    day: date
    start: datetime
    end: datetime


class Calendar:
    """Days in one time zone; each begins at its first moment there, also where clocks change."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._zone = ZoneInfo(zone)

    def day_of(self, moment: datetime) -> date:
        """The day of an aware time."""
        return moment.astimezone(self._zone).date()

    def start_of(self, day: date) -> datetime:
        """The first moment of a day, in UTC."""
        return datetime.combine(day, time(), self._zone).astimezone(UTC)

    def end_of(self, day: date) -> datetime:
        """The first moment after a day, in UTC."""
        return self.start_of(day + timedelta(days=1))

    def span_of(self, day: date) -> Span:
        """A whole day."""
        return Span(day.isoformat(), day, self.start_of(day), self.end_of(day))

    def hours_of(self, day: date) -> list[Span]:
        """The hours of a day, in order."""
        whole, hours = self.span_of(day), list[Span]()
        while not hours or hours[-1].end < whole.end:
            hours.append(_hour(whole, len(hours)))
        return hours

    def hour_of(self, moment: datetime) -> Span:
        """The hour of an aware time."""
        day = self.span_of(self.day_of(moment))
        return _hour(day, (moment - day.start) // HOUR)

    def local(self, moment: datetime) -> datetime:
        """An aware time as the clocks of the zone show it."""
        return moment.astimezone(self._zone)


def _hour(day: Span, number: int) -> Span:
    start = day.start + number * HOUR
    return Span(f"{day.key}T{number:02}", day.day, start, min(start + HOUR, day.end))


def days_between(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to `last`, both included."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


class Top(NamedTuple):
    """By what pulls and pushes are also added up: `key_of` gives the names that rows share.

    Of rows for which it gives None nothing is added. `with_registry`: the same names in another
    registry are others.
    """

    key_of: Callable[[Row], tuple[str, ...] | None]
    with_registry: bool = False


TOPS = {
    "repositories": Top(lambda row: (row.repository,), with_registry=True),
    "tags": Top(lambda row: (row.repository, row.tag) if row.tag else None, with_registry=True),
    "accounts": Top(lambda row: (row.actor,)),
    "clients": Top(lambda row: (row.client,)),
    "addresses": Top(lambda row: (row.address,) if row.address else None),
}
Counts = dict[str, int]  # how often each action of COUNTED happened


class Sums:
    """What happened in a period, added up in the ways that pages show.

    `days` and `hours` (by number, of the one day that was summed up by hours) hold counts by
    action, `tops` pulls and pushes by key: the names, after that of the registry where it belongs
    to them.
    """

    def __init__(self) -> None:
        self.days: dict[date, Counts] = {}
        self.hours: dict[int, Counts] = {}
        self.bytes_pushed = 0
        self.tops: dict[str, dict[tuple[str, ...], tuple[int, int]]] = {name: {} for name in TOPS}
        self.missing: Sequence[date] = ()

    def add(self, row: Row, hour: int | None = None) -> None:
        """Add one row; `hour` is the number of its hour."""
        self.bytes_pushed = add_sizes((self.bytes_pushed, row.bytes))
        if row.action not in COUNTED:
            return
        self.count(row.day, {row.action: row.number})
        if hour is not None:
            add_counts(self.hours.setdefault(hour, {}), {row.action: row.number})
        if row.action in (PULL, PUSH):
            numbers = (row.number, 0) if row.action == PULL else (0, row.number)
            for name, top in TOPS.items():
                key = top.key_of(row)
                if key is not None:
                    self.add_top(name, (row.registry, *key) if top.with_registry else key, *numbers)

    def count(self, day: date, counts: Mapping[str, int]) -> None:
        """Add what happened on a day."""
        add_counts(self.days.setdefault(day, {}), counts)

    def add_top(self, name: str, key: tuple[str, ...], pulls: int, pushes: int) -> None:
        """Add to one line of a top list."""
        before = self.tops[name].get(key, (0, 0))
        self.tops[name][key] = (before[0] + pulls, before[1] + pushes)

    @property
    def counts(self) -> Counts:
        """How often what happened in the whole period."""
        total = dict.fromkeys(COUNTED, 0)
        for counts in self.days.values():
            add_counts(total, counts)
        return total


def add_counts(to: Counts, counts: Mapping[str, int]) -> None:
    """Add `counts` to `to`."""
    for action, number in counts.items():
        to[action] = to.get(action, 0) + number
