"""Days, and the rows that say what happened on one. Pure.

Every figure is a sum over such rows: of closed days as they were summarised, of other days as they
are made from the events at that moment (app.store.usage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple, TypeVar
from zoneinfo import ZoneInfo

PUSH, PULL, CHECK, DELETE = "push", "pull", "check", "delete"
# Of an index's children: they count nowhere, but a child that was pulled is in use, and what was
# pushed with an index are its children's bytes.
PULL_PART, PUSH_PART = "pull part", "push part"
COUNTED = (PUSH, PULL, CHECK, DELETE)

Key = TypeVar("Key")


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

    def local(self, moment: datetime) -> datetime:
        """An aware time as the clocks of the zone show it."""
        return moment.astimezone(self._zone)


def days_between(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to `last`, both included."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


class Total:
    """The sum of some rows."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        self.bytes_pushed = 0
        self.last: dict[str, datetime] = {}

    def add(self, row: Row) -> None:
        """Add one row."""
        if row.action in self.counts:
            self.counts[row.action] += row.number
            self.last[row.action] = max(row.last, self.last.get(row.action, row.last))
        self.bytes_pushed += row.bytes

    @property
    def pushes(self) -> int:
        """Pushes of tags and manifests; that of an index with its children is one."""
        return self.counts[PUSH]

    @property
    def pulls(self) -> int:
        """Pulls; that of an index with its children is one."""
        return self.counts[PULL]

    @property
    def checks(self) -> int:
        """HEADs that no pull followed."""
        return self.counts[CHECK]

    @property
    def deletes(self) -> int:
        """Deletes of tags, manifests and repositories."""
        return self.counts[DELETE]


def total_by(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, Total]:
    """The sums of rows with the same key."""
    totals: dict[Key, Total] = {}
    for row in rows:
        found = key(row)
        if found not in totals:
            totals[found] = Total()
        totals[found].add(row)
    return totals
